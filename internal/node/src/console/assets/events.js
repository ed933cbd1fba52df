// What happened lately, the newest first.

import { get, query as parameters } from "./api.js";
import { h } from "./dom.js";
import { clock, moment } from "./format.js";
import { tag } from "./parts.js";

const KEPT_MAX = 500;
const WORDS = { good: "Good", bad: "Trouble", plain: "Event" };

let known = [];
let last = 0;
let start = ""; // of the node, to which the numbers belong

/** Asks for what is new; answers who was asked. */
async function ask() {
  const answer = await get(`/events${parameters({ after: last, start })}`);
  if (answer.restarted) known = [];
  const newest = known.at(-1)?.number ?? 0;
  known = [...known, ...answer.events.filter((event) => event.number > newest)].slice(-KEPT_MAX);
  ({ last, start } = answer);
  return answer.node;
}

/** The last few events, the newest first. */
export async function latest(most) {
  await ask();
  return known.slice(-most).reverse();
}

export async function content({ query }) {
  const only = query.get("only") ?? "";
  const node = await ask();
  const shown = known.filter((event) => !only || event.tone === only).reverse();
  return h("div", { class: "page" },
    h("h1", { tabindex: -1 }, "Events"),
    h("p", { class: "lead" }, `What ${node} has seen since it started, the newest first. The times are this browser's.`),
    h("nav", { class: "filters", "aria-label": "Which events" }, filter("", "All", only), filter("bad", "Trouble", only), filter("good", "Recoveries", only)),
    list(shown));
}

function filter(value, word, only) {
  return h("a", { class: "button", href: value ? `#/events?only=${value}` : "#/events", "aria-current": value === only ? "true" : null }, word);
}

/** Events as a list. */
export function list(events) {
  if (!events.length) return h("p", { class: "calm" }, "Nothing has happened.");
  return h("ol", { class: "events" }, events.map((event) =>
    h("li", { "data-key": event.number },
      h("time", { datetime: moment(event.at_ms) }, clock(event.at_ms)),
      tag(event.tone, WORDS[event.tone]),
      h("span", { class: "words" }, event.words))));
}
