// The cluster as a map: racks, and in them the nodes with what they lead and how they are.

import { h } from "./dom.js";
import { bytes, count, number, percent } from "./format.js";
import { bar, table, tag } from "./parts.js";

export const needsCluster = true;

export async function content({ cluster }) {
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Cluster"),
    h("dl", { class: "facts" },
      fact("Cluster", cluster.cluster),
      fact("Id", h("code", null, cluster.cluster_id || "not founded yet")),
      fact("Catalog led by", cluster.catalog_leader || "nobody"),
      fact("Rules in force", `level ${cluster.feature_level}`)),
    h("section", { "aria-labelledby": "map" }, h("h2", { id: "map" }, "Map"), map(cluster)),
    h("section", { "aria-labelledby": "table" }, h("h2", { id: "table" }, "All nodes"), rows(cluster)));
}

function fact(name, value) {
  return h("div", null, h("dt", null, name), h("dd", null, value));
}

/** Tone and word for how a node is. */
export function state(node) {
  if (!node.alive) return ["bad", "Away"];
  if (node.not_ready) return ["warn", "Not ready"];
  if (node.leaving) return ["plain", "Leaving"];
  if (node.drained) return ["plain", "Drained"];
  return ["good", "Ready"];
}

export function map({ nodes }) {
  const racks = Map.groupBy ? Map.groupBy(nodes, (node) => node.rack) : group(nodes);
  const most = Math.max(1, ...nodes.map((node) => node.leaders));
  const named = racks.size > 1 || !racks.has("");
  return h("div", { class: "racks" }, [...racks].sort().map(([rack, members]) =>
    h("section", { class: named ? "rack" : "rack bare", "aria-label": rack ? `Rack ${rack}` : "Nodes without a rack" },
      named && h("h3", null, rack ? `Rack ${rack}` : "No rack"),
      h("ul", { class: "nodes" }, members.map((node) => card(node, most))))));
}

function group(nodes) {
  const racks = new Map();
  for (const node of nodes) racks.set(node.rack, [...(racks.get(node.rack) ?? []), node]);
  return racks;
}

function card(node, most) {
  const [tone, word] = state(node);
  return h("li", { class: `node ${tone}`, "data-key": node.name },
    h("p", { class: "head" }, h("strong", null, node.name), tag(tone, word)),
    h("p", { class: "roles" }, node.leads_catalog ? "leads the catalog" : node.catalog_role ? `catalog ${node.catalog_role}` : "not in the catalog"),
    measured("Leads", number(node.leaders), bar(node.leaders, most, `leads ${count(node.leaders, "partition")}`, "wave")),
    disk(node),
    h("p", { class: "small" }, `${count(node.replicas, "replica")} · ${cpu(node)} · ${node.version || "version unknown"}`),
    node.not_ready && node.alive && h("p", { class: "small" }, node.not_ready),
    node.notices.map((notice) => h("p", { class: "small" }, tag("warn", "Notice"), " ", notice)));
}

function measured(name, value, drawing) {
  return h("p", { class: "measured" }, h("span", null, name), drawing, h("span", { class: "value" }, value));
}

function disk(node) {
  if (!node.disk) return h("p", { class: "measured" }, h("span", null, "Disk"), h("span", { class: "value" }, "not told"));
  const { total_bytes: total, free_bytes: free, state: how } = node.disk;
  const used = total - free;
  const tone = how === "full" ? "bad" : how === "low" ? "warn" : "plain";
  const words = how === "plenty" ? percent(used, total) : `${percent(used, total)}, ${how}`;
  return measured("Disk", words, bar(used, total, `${words} of the disk used, ${bytes(free)} free`, tone));
}

function cpu(node) {
  return node.cpu === null ? "CPU –" : `CPU ${Math.round(node.cpu * 100)} %`;
}

function rows({ nodes }) {
  const columns = [
    { name: "Node", cell: (node) => node.name },
    { name: "State", cell: (node) => tag(...state(node)) },
    { name: "Rack", cell: (node) => node.rack || "–", kind: "wide" },
    { name: "Address", cell: (node) => h("code", null, node.address), kind: "wide" },
    { name: "Leads", cell: (node) => number(node.leaders), kind: "number" },
    { name: "Replicas", cell: (node) => number(node.replicas), kind: "number" },
    { name: "Free", cell: (node) => (node.disk ? bytes(node.disk.free_bytes) : "–"), kind: "number" },
    { name: "Version", cell: (node) => node.version || "–", kind: "wide" },
  ];
  return table("Nodes of the cluster", columns, nodes, (node) => node.name);
}
