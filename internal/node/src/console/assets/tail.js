// Records of a topic as they come.

import { get, query } from "./api.js";
import { h, morph } from "./dom.js";
import { clock, count, moment, number } from "./format.js";
import { tag } from "./parts.js";

/** It follows a stream; asking every two seconds is for other pages. */
export const asksItself = true;

const SHOWN_MAX = 300;
const TOPICS_OFFERED = 200;

let source = null;
let paused = false;
let waiting = [];

export function leave() {
  source?.close();
  source = null;
}

/** Follows only if the page is still shown when everything else is there: nobody would end a tail that was begun later. */
export async function content({ query: asked, cluster, isShown }) {
  const wanted = Object.fromEntries(["tenant", "topic", "partition", "back", "contains"].map((name) => [name, asked.get(name) ?? ""]));
  const page = h("div", { class: "page" }, h("h1", { tabindex: -1 }, "Live tail"));
  if (cluster && !cluster.shows_records) {
    page.append(h("p", { class: "lead" }, tag("plain", "Off"), " This node does not show records. They are the tenants' own; its setting ",
      h("code", null, "console_records"), " decides, and docs/security.md says why it is off unless somebody turns it on."));
    return page;
  }
  page.append(await form(wanted));
  if (wanted.topic && isShown()) page.append(...follow(wanted));
  return page;
}

async function form(wanted) {
  const { topics } = await get("/topics");
  const names = topics.rows.slice(0, TOPICS_OFFERED).map((topic) => `${topic.tenant}/${topic.name}`);
  const field = (name, label, properties) =>
    h("div", { class: "field" }, h("label", { for: name }, label), h("input", { id: name, name, value: wanted[name], autocomplete: "off", spellcheck: "false", ...properties }));
  const submit = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    const [tenant, ...rest] = given.name.split("/");
    const { partition, back, contains } = given;
    const next = `#/tail${query({ tenant, topic: rest.join("/"), partition, back, contains })}`;
    if (next === location.hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = next;
  };
  return h("form", { class: "fields", onsubmit: submit },
    h("div", { class: "field grow" }, h("label", { for: "name" }, "Tenant/topic"),
      h("input", { id: "name", name: "name", list: "topics", required: true, pattern: "[^\\/]+\\/[^\\/]+", autocomplete: "off", spellcheck: "false",
        placeholder: "tenant/topic", value: wanted.topic ? `${wanted.tenant}/${wanted.topic}` : names[0] ?? "" }),
      h("datalist", { id: "topics" }, names.map((name) => h("option", { value: name })))),
    field("partition", "Partition", { inputmode: "numeric", pattern: "[0-9]*", placeholder: "all", class: "few" }),
    field("back", "Begin so many back", { type: "number", min: 0, max: 500, placeholder: "0", class: "few" }),
    field("contains", "Key or value contains", { maxlength: 200 }),
    h("button", { type: "submit" }, "Follow"));
}

function follow(wanted) {
  leave();
  [paused, waiting] = [false, []];
  const state = h("span", { role: "status" }, "Connecting…"); // is read aloud, so it has nothing that changes with each record
  const counted = h("span", null);
  const records = h("ol", { class: "records", tabindex: 0, "aria-label": "Records, the newest first" });
  const button = h("button", { type: "button", class: "quiet", "aria-pressed": "false" }, "Pause");
  const tell = (...words) => morph(state, h("span", { role: "status" }, words));
  let seen = 0;
  const show = () => {
    records.prepend(...waiting.reverse());
    waiting = [];
    while (records.childElementCount > SHOWN_MAX) records.lastElementChild.remove();
  };
  button.onclick = () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
    if (!paused) show();
  };
  const add = (elements) => {
    waiting = [...waiting, ...elements].slice(-SHOWN_MAX);
    if (!paused) show();
  };
  const stream = new EventSource(`/api/v1/tail${query(wanted)}`);
  source = stream;
  const on = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("begun", ({ node, partitions, partitions_in_all: all }) => {
    tell(tag("good", "Live"), ` Following ${count(partitions.length, "partition")} of ${all} on ${node}.`);
  });
  on("records", (told) => {
    seen += told.records.length;
    add(told.records.map(record));
    counted.textContent = ` ${count(seen, "record")} so far.`;
  });
  on("skipped", ({ partition, records: left }) => add([note("plain", "Left out", `${count(left, "record")} of partition ${partition}: they come faster than a page can show.`)]));
  on("broken", ({ message }) => add([note("bad", "Broken", message)]));
  on("trouble", ({ partition, message }) => add([note("bad", "Ended", `Partition ${partition}: ${message}`)]));
  stream.onerror = () => explain(wanted, tell, stream);
  return [h("div", { class: "row" }, h("p", { class: "state" }, state, counted), button), records];
}

/** A stream that is refused says no words; the same question without a stream does. */
async function explain(wanted, tell, failed) {
  if (failed.readyState !== EventSource.CLOSED) return tell(tag("warn", "Interrupted"), " Connecting again…");
  try {
    const response = await fetch(`/api/v1/tail${query(wanted)}`, { signal: AbortSignal.timeout(5_000) });
    const words = response.ok ? "It ended." : (await response.json()).error.message;
    await response.body?.cancel().catch(() => {});
    tell(tag("bad", "Ended"), ` ${words}`);
  } catch {
    tell(tag("bad", "Ended"), " This node does not answer.");
  }
}

function note(tone, word, words) {
  return h("li", { class: "note" }, tag(tone, word), " ", words);
}

function record(told) {
  const key = told.key && h("span", { class: "key" }, h("span", { class: "unseen" }, "key "), written(told.key));
  return h("li", { class: "record" },
    h("p", { class: "meta" },
      h("span", { class: "place" }, `${told.partition}:${number(told.offset)}`),
      h("time", { datetime: moment(told.append_time_ms) }, clock(told.append_time_ms)),
      key,
      told.headers.map(([name, value]) => h("span", { class: "small" }, `${name}: ${value.text}`)),
      told.value.cut && h("span", { class: "small" }, `cut, ${count(told.value.bytes, "byte")} in all`)),
    h("pre", { class: told.value.kind }, told.value.kind === "json" ? pretty(told.value.text) : written(told.value)));
}

/** JSON on lines of its own, unless that would change a number that a browser cannot hold. */
function pretty(text) {
  if (/\d{16}/.test(text)) return text;
  const value = JSON.parse(text);
  const short = JSON.stringify(value);
  return short.length <= 100 ? text : JSON.stringify(value, null, 2);
}

function written(told) {
  if (told.kind !== "hex") return told.text || "(empty)";
  return told.text.match(/.{1,2}/g)?.join(" ") ?? "(empty)";
}
