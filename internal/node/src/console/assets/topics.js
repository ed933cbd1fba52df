// Topics, and the partitions of one with each of their replicas.

import { get, query } from "./api.js";
import { h } from "./dom.js";
import { bytes, count, duration, number, rate } from "./format.js";
import { pager, search, table, tag } from "./parts.js";

export async function content({ parts, query: asked, go }) {
  const wanted = { search: asked.get("search") ?? "", page: asked.get("page") ?? "" };
  return parts.length === 2 ? one(parts, wanted) : all(wanted, go);
}

async function all(wanted, go) {
  const { topics } = await get(`/topics${query(wanted)}`);
  const columns = [
    { name: "Topic", cell: (topic) => h("a", { href: link(topic) }, `${topic.tenant}/${topic.name}`) },
    { name: "State", cell: health },
    { name: "Partitions", cell: (topic) => number(topic.partitions), kind: "number wide" },
    { name: "Replicas each", cell: (topic) => topic.replication, kind: "number wide" },
    { name: "In/s", cell: (topic) => rate(topic.produced_per_second), kind: "number" },
    { name: "Out/s", cell: (topic) => rate(topic.consumed_per_second), kind: "number wide" },
    { name: "Records", cell: (topic) => number(topic.records), kind: "number wide" },
    { name: "On disks", cell: (topic) => bytes(topic.stored_bytes), kind: "number wide" },
    { name: "Lag", cell: (topic) => number(topic.lag_records), kind: "number" },
  ];
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Topics"),
    search("Find a topic", wanted.search, (text) => go(`#/topics${query({ search: text })}`)),
    table("Topics", columns, topics.rows, (topic) => `${topic.tenant}/${topic.name}`, "There is no such topic."),
    pager(topics, (page) => `#/topics${query({ ...wanted, page })}`, "topics"),
    h("p", { class: "legend" }, "Lag: the most records that a replica lacks."));
}

function link({ tenant, name }) {
  return `#/topics/${encodeURIComponent(tenant)}/${encodeURIComponent(name)}`;
}

function health(topic) {
  if (topic.leaderless) return tag("bad", `${topic.leaderless} without leader`);
  if (topic.damaged) return tag("warn", `${topic.damaged} damaged`);
  if (topic.incomplete) return tag("warn", `${topic.incomplete} incomplete`);
  return tag("good", "Whole");
}

async function one([tenant, name], wanted) {
  const path = `/topics/${encodeURIComponent(tenant)}/${encodeURIComponent(name)}`;
  const { topic, partitions, retention_ms: age, retention_bytes: size } = await get(`${path}${query(wanted)}`);
  const columns = [
    { name: "Partition", cell: (partition) => partition.partition },
    { name: "Leader", cell: (partition) => partition.leader || tag("bad", "none") },
    { name: "Replicas", cell: (partition) => h("ul", { class: "chips" }, partition.replicas.map((replica) => chip(replica, partition))) },
    { name: "In/s", cell: (partition) => rate(partition.produced_per_second), kind: "number" },
    { name: "Out/s", cell: (partition) => rate(partition.consumed_per_second), kind: "number wide" },
    { name: "First", cell: (partition) => number(partition.log_start), kind: "number wide" },
    { name: "High watermark", cell: (partition) => number(partition.high_watermark), kind: "number" },
    { name: "Term", cell: (partition) => number(partition.term), kind: "number wide" },
  ];
  return h("div", { class: "page" },
    h("p", { class: "back" }, h("a", { href: "#/topics" }, "All topics")),
    h("h1", { tabindex: -1 }, `${tenant}/${name}`),
    h("p", { class: "lead" }, health(topic), ` ${count(topic.partitions, "partition")} with ${count(topic.replication, "replica")} each. `,
      `Records are kept ${age ? duration(age) : "for ever"}${size ? `, ${bytes(size)} of each partition` : ""}. `,
      h("a", { href: `#/tail${query({ tenant, topic: name })}` }, "Live tail")),
    table(`Partitions of ${tenant}/${name}`, columns, partitions.rows, (partition) => partition.partition),
    pager(partitions, (page) => `#${path}${query({ page })}`, "partitions"),
    h("p", { class: "legend" }, "Of each replica: its node, what it is, and how many records it lacks."));
}

function chip(replica, partition) {
  const [tone, words] = told(replica);
  const is = replica.node === partition.leader && tone === "good" ? "leader" : words;
  return h("li", { class: `chip ${tone}`, "data-key": replica.node }, h("strong", null, replica.node), ` ${is}`);
}

function told(replica) {
  if (replica.damaged_everywhere) return ["bad", "lost records"];
  if (replica.damaged_entries) return ["warn", `${replica.damaged_entries} damaged`];
  if (!replica.role) return ["bad", "silent"];
  if (replica.role === "dead" || replica.role === "stopped") return ["bad", replica.role];
  if (replica.lag_records) return ["good", `−${number(replica.lag_records)}`];
  return ["good", replica.role];
}
