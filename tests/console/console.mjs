// usage: console.mjs HIGHWATER_BINARY CHROMIUM WORK_DIRECTORY
//
// One story: a cluster with topics, records, a group and a tenant; every page in every size and theme, by mouse and by keyboard; a node
// that dies and comes back; a thousand partitions. Nothing is asserted about time.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "./browser.mjs";
import { Cluster, until } from "./cluster.mjs";

const [binary, chromium, work] = process.argv.slice(2);
const PARTITIONS = 1_000;

async function fill(cluster) {
  await cluster.run(["topic", "create", "orders", "--partitions", "4"]);
  await cluster.run(["topic", "create", "clicks", "--partitions", "2"]);
  const orders = Array.from({ length: 400 }, (_, number) => `customer-${number % 17}={"order":${number},"items":[{"sku":"A-${number % 5}","count":2}],"total":${(number * 7) % 97}.5}`);
  await cluster.run(["produce", "orders", "--key-separator", "=", "--compression", "zstd"], `${orders.join("\n")}\n`);
  await cluster.run(["consume", "orders", "--group", "billing", "--from", "beginning", "--max", "150"]);
  await cluster.run(["produce", "clicks"], `${Array.from({ length: 50 }, (_, number) => `click ${number}`).join("\n")}\n`);
  await cluster.run(["consume", "clicks", "--group", "readers", "--from", "beginning", "--max", "30"]);
  await cluster.run(["tenant", "create", "acme"]);
  await cluster.run(["tenant", "quota", "acme", "--set", "topics=10"]);
}

const text = (page) => page.locator("main").innerText();
const shows = (words) => async (page) => {
  for (const word of [words].flat()) await page.locator("main").getByText(word).first().waitFor();
};

/** Every page, with what must stand there. */
const PAGES = [
  ["overview", "#/", shows(["Nothing needs attention.", "all led", "leads the catalog"])],
  ["cluster", "#/nodes", shows(["All nodes", "n3"])],
  ["topics", "#/topics", shows(["dev/orders", "dev/clicks"])],
  ["topic", "#/topics/dev/orders", shows(["Of each replica"])],
  ["groups", "#/groups", shows(["billing"])],
  ["group", "#/groups/dev/orders/billing", shows(["Members", "Next offset"])],
  ["tail", "#/tail?tenant=dev&topic=orders&back=5", shows([/records? so far/, /"order":/])],
  ["tenants", "#/tenants", shows(["acme", "Who has which role"])],
  ["tenant", "#/tenants/dev", shows(["Use and quotas", "Clients that use something"])],
  ["events", "#/events", shows(["Topic dev/orders was made."])],
];

async function everyPage(browser, console_) {
  for (const [name, hash, ready] of PAGES) {
    await browser.portray(`${console_}/${hash}`, name, ready);
    console.log(`  ${name}: as expected, accessible`);
  }
}

/** Figures against what was produced and consumed. */
async function contents(browser, console_, cluster) {
  const page = await browser.page();
  await page.goto(`${console_}/#/topics`);
  const row = page.locator("tr", { hasText: "dev/orders" });
  await row.waitFor();
  await until("the rate of orders is shown", async () => /\d/.test(await row.locator("td").nth(3).innerText()));
  const cells = await row.locator("td").allInnerTexts();
  assert.equal(cells[1], "4", `partitions of orders: ${cells}`);
  assert.ok(Number(cells[5].replaceAll(",", "")) >= 400, `records of orders: ${cells}`);
  await page.getByLabel("Find a topic").fill("click");
  await until("the list is narrowed", async () => !(await text(page)).includes("dev/orders"));
  // What the page says and what the command line says is the same; records still come, so it is asked until it is.
  await until("the lag is as the command line has it", async () => {
    const described = JSON.parse(await cluster.run(["group", "describe", "clicks", "readers", "--output", "json"]));
    const lag = described.partitions.reduce((sum, partition) => sum + partition.lag, 0);
    await page.goto(`${console_}/#/groups`);
    const shown = await page.locator("tr", { hasText: "readers" }).locator("td").nth(1).innerText();
    return Number(shown.replaceAll(",", "")) === lag && lag === 20;
  });
  await page.context().close();
}

/** The tail: filtered, live, JSON on lines of its own, and it can be paused. */
async function follow(browser, console_, cluster) {
  const page = await browser.page();
  await page.goto(`${console_}/#/tail`);
  await page.getByLabel("Tenant/topic").fill("dev/clicks");
  await page.getByLabel("Key or value contains").fill("needle");
  await page.getByRole("button", { name: "Follow" }).click();
  await page.getByText(/Following 2 partitions of 2/).waitFor();
  await cluster.run(["produce", "clicks"], "hay\nneedle one\nhay again\nneedle two\n");
  const shown = page.locator(".records");
  await until("what fits is shown", async () => (await shown.innerText()).includes("needle two"));
  const records = await shown.innerText();
  assert.ok(records.includes("needle one") && !records.includes("hay"), records);
  await page.getByRole("button", { name: "Pause" }).click();
  await cluster.run(["produce", "clicks"], "needle three\n");
  await page.getByText(/3 records so far/).waitFor();
  assert.ok(!(await shown.innerText()).includes("needle three"));
  await page.getByRole("button", { name: "Go on" }).click();
  await until("what waited is shown", async () => (await shown.innerText()).includes("needle three"));
  await page.context().close();
}

/** From the first key on: skip link, pages, theme, a table, a topic. */
async function byKeyboard(browser, console_) {
  const page = await browser.page();
  await page.goto(`${console_}/`);
  await shows("Nothing needs attention.")(page);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  for (const word of ["Cluster", "Topics", "Groups", "Live tail", "Tenants", "Events", "Overview"]) {
    await tabTo(page, word);
    await page.keyboard.press("Enter");
    await until(`the focus is on the heading of ${word}`, () => page.evaluate(() => document.activeElement.tagName === "H1"));
    await until(`${word} is marked`, async () => (await page.locator("nav [aria-current=page]").innerText()) === word);
    const outline = await page.evaluate(() => document.activeElement.matches(":focus"));
    assert.ok(outline);
  }
  await tabTo(page, "Auto");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  await tabTo(page, "Topics");
  await page.keyboard.press("Enter");
  await shows("dev/orders")(page);
  await tabTo(page, "dev/orders");
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(ring, "solid", "the focus can be seen");
  await page.keyboard.press("Enter");
  await shows("Of each replica")(page);
  await page.context().close();
}

async function tabTo(page, word) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement.textContent.trim())) === word) return;
  }
  throw new Error(`no key leads to ${word}`);
}

/**
 * A node is frozen, which is death to others: console, `highwater top`, log and metrics tell it, and when it goes on, that it is over. What the
 * metrics said is left for tests/deploy/away.py, which has Prometheus judge what its alerts make of that.
 */
async function aNodeIsFrozen(browser, consoles, cluster) {
  const told = { before: await cluster.metrics() };
  const page = await browser.page();
  await page.goto(`${consoles[0]}/#/`);
  await shows("Nothing needs attention.")(page);
  process.kill(cluster.pids[2], "SIGSTOP");
  try {
    await shows(["n3 is not heard of.", "To do:"])(page);
    await until("it is said aloud", async () => /n3 is not heard of/.test(await page.locator("[aria-live=polite]").innerText()));
    await until("the header says so", async () => /to look at/.test(await page.locator("#health").innerText()));
    const top = JSON.parse(await cluster.run(["top", "--output", "json"]));
    assert.ok(top.findings.some((finding) => finding.about === "n3" && finding.severity === "critical"), JSON.stringify(top.findings));
    await browser.portray(`${consoles[0]}/#/`, "overview-trouble", shows("n3 is not heard of."));
    await page.goto(`${consoles[0]}/#/events`);
    await shows("n3 is not heard of any more.")(page);
    await until("the log tells it", () => /WARN.* a node is silent; its replicas are missing until it is back node=n3/.test(cluster.log("n1")));
    told.away = await cluster.metrics();
  } finally {
    process.kill(cluster.pids[2], "SIGCONT");
  }
  await shows("n3 is back.")(page);
  await page.goto(`${consoles[0]}/#/`);
  await shows("Nothing needs attention.")(page);
  await until("the log tells that it is over", () => /INFO.* a node is here node=n3/.test(cluster.log("n1").split("a node is silent").at(-1)));
  told.back = await cluster.metrics();
  writeFileSync(join(work, "away.json"), JSON.stringify(told));
  await page.context().close();
}

/** A node is killed and started again at once: that is told, too. */
async function aNodeIsKilled(browser, consoles, cluster) {
  const page = await browser.page();
  await page.goto(`${consoles[0]}/#/events`);
  await shows("began to watch.")(page);
  process.kill(cluster.pids[1], "SIGKILL");
  await shows(/n2 (was restarted|is back)\./)(page);
  await page.goto(`${consoles[0]}/#/`);
  await shows("Nothing needs attention.")(page);
  await page.context().close();
}

async function manyPartitions(browser, consoles, cluster) {
  await cluster.run(["cluster", "settings", "--timer-step", "3"]); // as docs/operating.md advises for so many replicas
  await cluster.run(["topic", "create", "wide", "--partitions", String(PARTITIONS), "--deadline", "120s"]);
  for (const [name, hash, ready] of [
    ["overview", "#/", shows([/^1,0\d\d$/])],
    ["topic", "#/topics/dev/wide", shows(["Page 1 of 20"])],
  ]) {
    const page = await browser.page();
    await page.goto(`${consoles[0]}/${hash}`, { waitUntil: "commit" });
    await ready(page);
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
    const filled = await page.evaluate(() => performance.now());
    console.log(`  ${name} with ${PARTITIONS} partitions: first paint after ${Math.round(paint)} ms, filled after ${Math.round(filled)} ms`);
    await page.context().close();
  }
  const page = await browser.page();
  await page.goto(`${consoles[0]}/#/topics/dev/wide`);
  await page.getByRole("link", { name: "Next" }).click();
  await page.getByText("Page 2 of 20").waitFor();
  assert.ok((await page.locator("tbody th").first().innerText()) === "50");
  await page.context().close();
}

// In memory, where there is such a place: a disk of this machine that is nearly full would be told as something that needs attention.
const place = existsSync("/dev/shm") ? mkdtempSync("/dev/shm/highwater-console-") : work;
const cluster = await new Cluster(binary, join(place, "cluster")).start();
let browser;
let stopProducing = () => {};
try {
  await fill(cluster);
  stopProducing = cluster.produce("orders", (count) => `customer-${count % 7}={"order":${1000 + count},"total":12.5}`, 20);
  browser = await Browser.open(chromium, work);
  await until("nothing needs attention", async () => {
    const answer = await fetch(`${cluster.consoles[0]}/api/v1/cluster`);
    return answer.ok && (await answer.json()).findings.length === 0;
  });
  await everyPage(browser, cluster.consoles[0]);
  await contents(browser, cluster.consoles[0], cluster);
  await follow(browser, cluster.consoles[1], cluster);
  await byKeyboard(browser, cluster.consoles[0]);
  assert.deepEqual(browser.troubles, [], "the browser complained");
  await aNodeIsFrozen(browser, cluster.consoles, cluster);
  await aNodeIsKilled(browser, cluster.consoles, cluster);
  await manyPartitions(browser, cluster.consoles, cluster);
  assert.deepEqual(browser.troubles, [], "the browser complained");
  console.log(`The console is as it should be; pictures are in ${browser.pictures}.`);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  stopProducing();
  await browser?.close();
  await cluster.stop();
  rmSync(join(work, "logs"), { recursive: true, force: true });
  cpSync(join(place, "cluster", "logs"), join(work, "logs"), { recursive: true });
  if (place !== work) rmSync(place, { recursive: true });
}
