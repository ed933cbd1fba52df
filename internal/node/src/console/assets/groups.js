// Consumer groups: how far behind they are, and who is in them.

import { get, query } from "./api.js";
import { h } from "./dom.js";
import { ago, count, number } from "./format.js";
import { pager, search, table, tag } from "./parts.js";

export async function content({ parts, query: asked, go }) {
  if (parts.length === 3) return one(parts);
  const wanted = { search: asked.get("search") ?? "", page: asked.get("page") ?? "" };
  const { groups, node } = await get(`/groups${query(wanted)}`);
  const columns = [
    { name: "Group", cell: (group) => h("a", { href: link(group) }, group.group) },
    { name: "Topic", cell: (group) => `${group.tenant}/${group.topic}` },
    { name: "Lag", cell: lag, kind: "number" },
    { name: "Members", cell: (group) => number(group.members_seen), kind: "number" },
    { name: "Coordinator", cell: (group) => group.coordinator ?? "none", kind: "wide" },
    { name: "Last used", cell: (group) => (group.used_ms ? ago(group.used_ms) : "–"), kind: "wide" },
  ];
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Consumer groups"),
    search("Find a group", wanted.search, (text) => go(`#/groups${query({ search: text })}`)),
    table("Consumer groups", columns, groups.rows, (group) => link(group), "There is no such group."),
    pager(groups, (page) => `#/groups${query({ ...wanted, page })}`, "groups"),
    h("p", { class: "legend" }, `Offsets are kept with partitions; these are of the partitions that have a replica on ${node}.`));
}

function link({ tenant, topic, group }) {
  return `#/groups/${[tenant, topic, group].map(encodeURIComponent).join("/")}`;
}

function lag(group) {
  const unknown = group.partitions_elsewhere;
  return [number(group.lag_records), unknown > 0 && h("span", { class: "small" }, ` + ${count(unknown, "partition")} not known here`)];
}

async function one(names) {
  const group = await get(`/groups/${names.map(encodeURIComponent).join("/")}`);
  const parts = [
    { name: "Partition", cell: (part) => part.partition },
    { name: "Claimed by", cell: (part) => h("code", null, part.member || "nobody") },
    { name: "Next offset", cell: (part) => (part.offset === null ? "none yet" : number(part.offset)), kind: "number" },
    { name: "Lag", cell: (part) => number(part.lag_records), kind: "number" },
    { name: "Last used", cell: (part) => ago(part.used_ms), kind: "wide" },
  ];
  return h("div", { class: "page" },
    h("p", { class: "back" }, h("a", { href: "#/groups" }, "All groups")),
    h("h1", { tabindex: -1 }, group.group),
    h("p", { class: "lead" }, `On topic ${group.tenant}/${group.topic}, `, h("strong", null, `${count(group.lag_records, "record")} behind`), `, as seen by ${group.node}.`),
    h("section", { "aria-labelledby": "members" }, h("h2", { id: "members" }, "Members"), members(group)),
    h("section", { "aria-labelledby": "parts" }, h("h2", { id: "parts" }, "Partitions"),
      table("Offsets of the group", parts, group.parts, (part) => part.partition)));
}

function members(group) {
  if (group.coordinator !== group.node) {
    return h("p", null, `Members are known to the node that coordinates the group: ${group.coordinator ?? "nobody does at present"}.`);
  }
  const columns = [
    { name: "Member", cell: (member) => h("code", null, member.member) },
    { name: "Client", cell: (member) => member.client, kind: "wide" },
    { name: "Should have", cell: (member) => member.assigned.join(", ") || "–" },
    { name: "Has", cell: (member) => member.held.join(", ") || "–" },
    { name: "Heard", cell: (member) => (member.silent_ms > 10_000 ? tag("warn", `${Math.round(member.silent_ms / 1000)} s ago`) : "now"), kind: "wide" },
  ];
  return table("Members of the group", columns, group.members, (member) => member.member, "Nobody is in it at present.");
}
