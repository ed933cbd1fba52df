// usage: story.mjs HIGHWATER_BINARY BINARIES_DIRECTORY CHROMIUM WORK_DIRECTORY
//
// One story: somebody looks at a deployment while events are posted, by mouse and by keyboard; messages that are HTML stay text; the server is
// killed and comes back, is stopped and comes back, and a node of the cluster is killed, and each event is on the page once; and the topic
// is made again. Nothing is asserted about time.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "./browser.mjs";
import { Cluster, until } from "./cluster.mjs";
import { Server } from "./server.mjs";

const [highwater, binaries, chromium, work] = process.argv.slice(2);
const HOSTILE = `<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>&amp;`;
// What a browser says while nobody answers is no defect of the page.
const AWAY = /Failed to load resource|net::ERR_/;

const event = (id, message = `step ${id}`) => ({ id, deployment_id: 7, message });
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, place) => from + place);
const ids = async (page) => (await page.locator("#events .id").allInnerTexts()).map((text) => Number(text.replace("Event ", "")));
const state = (page) => page.locator("#state").innerText();

/** The page shows exactly these ids, newest first. */
async function shows(page, wanted) {
  const newestFirst = JSON.stringify([...wanted].reverse());
  await until(`the page shows ${wanted.length} events`, async () => (await ids(page)).length >= wanted.length);
  assert.equal(JSON.stringify(await ids(page)), newestFirst);
}

/** By keyboard: from the page's start to the choice, and to a deployment. */
async function choose(page, server) {
  await page.goto(server.page);
  await until("the page asks for a deployment", async () => /Choose a deployment/.test(await state(page)));
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "deployment");
  await until("deployments are proposed", async () => (await page.locator("#deployments option").count()) === 1);
  await page.keyboard.type("7");
  await page.keyboard.press("Enter");
  await page.waitForURL(/deployment=7/);
  await until("it follows", async () => /Following deployment 7: 3 events/.test(await state(page)));
  for (const wanted of ["deployment", "", "pause"]) {
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), wanted);
    assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "solid", "the focus can be seen");
  }
}

/** What is posted appears; what was there already does not appear again; HTML is text. */
async function live(page, server) {
  await shows(page, [1, 2, 3]);
  await server.add([event(4), event(5, HOSTILE), event(6, "two\n  lines")]);
  await shows(page, numbers(1, 6));
  const again = await server.add([event(4), event(1)]);
  assert.ok(again.every((answer) => answer.already_there && !answer.differs), JSON.stringify(again));
  await server.add([{ ...event(1), deployment_id: 8 }, event(7)]);
  await shows(page, numbers(1, 7));
  const hostile = page.locator("#events li", { hasText: "Event 5" });
  assert.equal(await hostile.locator(".message").innerText(), HOSTILE);
  assert.equal(await page.locator("#events img, #events script").count(), 0);
  assert.equal(await page.evaluate(() => window.stolen), undefined);
  assert.match(await hostile.locator("time").first().getAttribute("datetime"), /^\d{4}-\d\d-\d\dT/);
  await until("it is said aloud", async () => /Following deployment 7: 7 events/.test(await page.locator("#state[role=status]").innerText()));
}

/** While it is paused nothing moves. */
async function pause(page, server) {
  const button = page.locator("#pause");
  await button.press("Enter");
  assert.equal(await button.getAttribute("aria-pressed"), "true");
  await server.add([event(8)]);
  await until("it is held back", async () => /Paused: deployment 7, 1 held back/.test(await state(page)));
  await shows(page, numbers(1, 7));
  await button.press("Enter");
  await shows(page, numbers(1, 8));
}

/** The server goes and comes back, and events were posted meanwhile elsewhere. */
async function restarts(page, server, other) {
  for (const [signal, id] of [["SIGKILL", 9], ["SIGTERM", 10]]) {
    await server.end(signal);
    await until("the page says so", async () => /does not answer/.test(await state(page)));
    await other.add([event(id)]);
    await server.start();
    await shows(page, numbers(1, id));
  }
  await until("it says that it follows", async () => /Following deployment 7/.test(await state(page)));
}

/** A node of the cluster dies, and is started again by `highwater dev` or not: events still come. */
async function aNodeIsKilled(page, server, cluster) {
  process.kill(cluster.pids[0], "SIGKILL");
  await server.add(numbers(11, 30).map((id) => event(id)));
  await shows(page, numbers(1, 30));
}

/** A page that is loaded later begins with the newest hundred. */
async function later(browser, server) {
  await server.add(numbers(31, 120).map((id) => event(id)));
  const page = await browser.page();
  await page.goto(`${server.page}?deployment=7`);
  await shows(page, numbers(21, 120));
  await page.context().close();
  const wrong = await browser.page();
  await wrong.goto(`${server.page}?deployment=%3Cb%3E`);
  await until("what is no deployment is told", async () => /not a deployment/.test(await state(wrong)));
  await wrong.context().close();
}

/** The topic is made again: the page, which has seen more than the log has now, begins anew and says so. */
async function anew(browser, servers, cluster) {
  const page = await browser.page("desktop", { bypassCSP: true }); // for the judge
  await page.goto(`${servers[0].page}?deployment=7`);
  await shows(page, numbers(21, 120));
  assert.equal(await page.locator("#anew").innerText(), "");
  await Promise.all(servers.map((server) => server.end("SIGTERM")));
  await cluster.run(["topic", "delete", "activity"]);
  await Promise.all(servers.map((server) => server.start()));
  await servers[1].add([event(500)]);
  await until("the page has begun anew", async () => JSON.stringify(await ids(page)) === "[500]");
  assert.match(await page.locator("#anew[role=status]").innerText(), /begun anew/);
  await browser.judge(page, "begun anew");
  await servers[1].add([event(501)]);
  await shows(page, [500, 501]);
  await until("it counts anew", async () => /Following deployment 7: 2 events/.test(await state(page)));
  await page.context().close();
}

async function portray(browser, server) {
  const isThere = (words) => async (page) => {
    await page.locator("#state", { hasText: words }).waitFor();
  };
  await server.add([
    { id: 1, deployment_id: 9, message: "Rollout of web 2.4.1 to 12 of 12 replicas begins" },
    { id: 2, deployment_id: 9, message: "<script>alert('not run')</script>" },
    { id: 3, deployment_id: 9, message: "Health checks pass:\n  web-0  ok\n  web-1  ok" },
    { id: 4, deployment_id: 9, message: `A word without an end: ${"x".repeat(200)}` },
  ]);
  await browser.portray(server.page, "choose", isThere("Choose a deployment"));
  await browser.portray(`${server.page}?deployment=9`, "feed", isThere("Following deployment 9: 4 events"));
}

const place = existsSync("/dev/shm") ? mkdtempSync("/dev/shm/highwater-activity-") : work;
const cluster = await new Cluster(highwater, join(place, "cluster")).start();
const profile = join(place, "cluster", "profile.toml");
const [server, other] = [new Server(binaries, profile), new Server(binaries, profile)];
let browser;
try {
  await Promise.all([server.start(), other.start()]);
  browser = await Browser.open(chromium, work);
  await server.add([event(1), event(2), event(3)]);
  const page = await browser.page();
  await choose(page, server);
  await live(page, server);
  await pause(page, server);
  assert.deepEqual(browser.troubles, [], "the browser complained");
  await restarts(page, server, other);
  await aNodeIsKilled(page, server, cluster);
  await page.context().close();
  await later(browser, server);
  await portray(browser, server);
  await anew(browser, [server, other], cluster);
  const troubles = browser.troubles.filter((trouble) => !AWAY.test(trouble));
  assert.deepEqual(troubles, [], "the browser complained");
  console.log(`The feed is as it should be; pictures are in ${browser.pictures}.`);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser?.close();
  await Promise.all([server.end("SIGTERM"), other.end("SIGTERM")]);
  await cluster.stop();
  rmSync(join(work, "logs"), { recursive: true, force: true });
  cpSync(join(place, "cluster", "logs"), join(work, "logs"), { recursive: true });
  if (place !== work) rmSync(place, { recursive: true });
}
