// The first page: what needs attention, what goes on, and the nodes.

import { h } from "./dom.js";
import { bytes, count, number, rate } from "./format.js";
import { TONES, WORDS, line, tag } from "./parts.js";
import { latest, list } from "./events.js";
import { map } from "./nodes.js";

export const needsCluster = true;

const EVENTS_SHOWN = 6;

export async function content({ cluster, history }) {
  const events = await latest(EVENTS_SHOWN);
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Overview"),
    attention(cluster.findings),
    tiles(cluster, history),
    h("section", { "aria-labelledby": "map" }, h("h2", { id: "map" }, "Nodes"), map(cluster)),
    h("section", { "aria-labelledby": "lately" },
      h("h2", { id: "lately" }, "Lately"),
      list(events),
      h("p", null, h("a", { href: "#/events" }, "All events"))));
}

function attention(findings) {
  const body = findings.length
    ? h("ul", { class: "findings" }, findings.map(finding))
    : h("p", { class: "calm" }, tag("good", "All is well"), " Nothing needs attention.");
  return h("section", { "aria-labelledby": "attention" }, h("h2", { id: "attention" }, "What needs attention"), body);
}

function finding(finding) {
  return h("li", { class: `finding ${TONES[finding.severity]}`, "data-key": finding.what },
    h("p", { class: "what" }, tag(TONES[finding.severity], WORDS[finding.severity]), " ", finding.what),
    h("p", null, finding.meaning),
    h("p", null, h("strong", null, "To do: "), finding.action));
}

function tiles({ nodes, totals }, history) {
  const ready = nodes.filter((node) => node.alive && node.not_ready === "").length;
  const led = totals.partitions - totals.leaderless;
  return h("section", { "aria-labelledby": "numbers" },
    h("h2", { id: "numbers", class: "unseen" }, "In numbers"),
    h("dl", { class: "tiles" },
      tile("Nodes ready", `${ready} of ${nodes.length}`, null),
      tile("Partitions", number(totals.partitions), `${led === totals.partitions ? "all led" : `${number(led)} led`}, in ${count(totals.topics, "topic")}`),
      tile("Records in, a second", rate(totals.produced_per_second), line(history.produced)),
      tile("Records out, a second", rate(totals.consumed_per_second), line(history.consumed)),
      tile("On all disks", bytes(totals.stored_bytes), "all replicas together")));
}

function tile(name, value, more) {
  return h("div", { class: "tile" }, h("dt", null, name), h("dd", { class: "big" }, value), more && h("dd", { class: "more" }, more));
}
