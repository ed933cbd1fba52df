// The frame around the pages: which one is shown, how often it asks, and what stands above it.

import { get } from "./api.js";
import { h, morph } from "./dom.js";
import { count } from "./format.js";
import { tag, trouble } from "./parts.js";
import * as events from "./events.js";
import * as groups from "./groups.js";
import * as nodes from "./nodes.js";
import * as overview from "./overview.js";
import * as tail from "./tail.js";
import * as tenants from "./tenants.js";
import * as topics from "./topics.js";

const ASK_MS = 2_000;
const HISTORY_MAX = 60;

const PAGES = [
  ["", "Overview", overview],
  ["nodes", "Cluster", nodes],
  ["topics", "Topics", topics],
  ["groups", "Groups", groups],
  ["tail", "Live tail", tail],
  ["tenants", "Tenants", tenants],
  ["events", "Events", events],
];

const main = document.getElementById("main");
const announce = document.getElementById("announce");
const history = { produced: [], consumed: [] };
let cluster = null;
let shown = null;
let told = null;

/** What the address says: the page, what of it, and parameters. */
function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decodeURIComponent);
  return { name, parts, query: new URLSearchParams(query) };
}

function remember(totals) {
  const keep = (list, value) => {
    list.push(value ?? 0);
    if (list.length > HISTORY_MAX) list.shift();
  };
  keep(history.produced, totals.produced_per_second);
  keep(history.consumed, totals.consumed_per_second);
}

function navigation(current) {
  const item = ([name, word]) =>
    h("li", null, h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, word));
  const list = document.getElementById("pages");
  morph(list, h("ul", { id: "pages" }, PAGES.map(item)));
  const here = list.querySelector("[aria-current]");
  const bar = list.parentElement; // on a phone the pages do not all fit
  bar.scrollLeft = here.offsetLeft - (bar.clientWidth - here.offsetWidth) / 2;
}

function above() {
  const where = document.getElementById("where");
  const health = document.getElementById("health");
  if (!cluster) {
    morph(health, h("p", { class: "health", id: "health" }, tag("bad", "No answer")));
    say("no answer", "The node does not answer.");
    return;
  }
  const viewer = cluster.viewer ? `, to ${cluster.viewer}` : "";
  morph(where, h("p", { class: "where", id: "where" },
    h("strong", null, cluster.cluster), ` as seen by ${cluster.node}${viewer}`));
  const serious = cluster.findings.filter((finding) => finding.severity !== "notice");
  const worst = serious.some((finding) => finding.severity === "critical") ? "bad" : "warn";
  const words = serious.length ? `${serious.length} to look at` : "All is well";
  morph(health, h("p", { class: "health", id: "health" },
    h("a", { href: "#/" }, tag(serious.length ? worst : "good", words))));
  const all = serious.map(subject).join("; ");
  say(all, serious.length ? `${count(serious.length, "thing")} to look at: ${serious[0].what}` : "All is well.");
}

/** What a finding is about, without how many and how much: numbers go up and down all the time. */
function subject({ severity, about }) {
  return `${severity} ${about.replace(/^\d+ partitions?$/, "partitions")}`;
}

/** For who does not see the page; once for each thing that it is about. */
function say(about, words) {
  if (about === told) return;
  if (told !== null) announce.textContent = words;
  told = about;
}

async function askCluster() {
  try {
    cluster = await get("/cluster");
    remember(cluster.totals);
  } catch {
    cluster = null;
  }
  above();
}

/** Asks what the page needs and shows it, unless another page is shown by then. */
async function refresh(page, first) {
  const isShown = () => shown === page;
  let content;
  try {
    if (page.module.needsCluster !== false) await askCluster();
    if (!isShown()) return;
    if (page.module.needsCluster && !cluster) throw new Error("This node does not answer.");
    content = await page.module.content({ ...page.address, cluster, history, go, isShown });
  } catch (error) {
    content = h("div", null, h("h1", { tabindex: -1 }, page.word), trouble(error));
  }
  if (!isShown() || content === null) return;
  const frame = h("main", { id: "main", tabindex: -1 }, content);
  if (first) main.replaceChildren(...frame.childNodes);
  else morph(main, frame);
}

/** Goes on with other parameters of the same page, without a new entry in the browser's history for each letter. */
function go(hash) {
  window.history.replaceState(null, "", hash);
  show(false);
}

async function show(moves = true) {
  const at = address();
  const [name, word, module] = PAGES.find(([known]) => known === at.name) ?? PAGES[0];
  shown?.module.leave?.();
  const page = { address: at, word, module };
  const former = shown;
  shown = page;
  navigation(name);
  document.title = `${word} · Highwater`;
  await refresh(page, former?.module !== module || moves);
  if (shown === page && moves && former) main.querySelector("h1")?.focus();
}

async function keepAsking() {
  for (;;) {
    await new Promise((wake) => setTimeout(wake, ASK_MS));
    if (document.hidden) continue;
    const page = shown;
    if (page.module.asksItself) await askCluster();
    else await refresh(page, false);
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page is shown
  main.focus();
});
window.addEventListener("hashchange", () => show());
await show();
keepAsking();
