// A browser that keeps what goes wrong, judges pages, and takes pictures of them.

import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
  "--disable-sync",
];
export const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 375, height: 812 } };
export const PATIENCE_MS = 60_000;

export class Browser {
  static async open(executablePath, work) {
    const browser = new Browser();
    browser.pictures = join(work, "screenshots");
    rmSync(browser.pictures, { recursive: true, force: true });
    mkdirSync(browser.pictures, { recursive: true });
    browser.chromium = await chromium.launch({ executablePath, args: FLAGS, headless: true });
    browser.troubles = [];
    return browser;
  }

  /** A page of its own, of which each complaint of the browser is kept. */
  async page(size = "desktop", options = {}) {
    const context = await this.chromium.newContext({ viewport: SIZES[size], ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.troubles.push(`${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.troubles.push(`${page.url()}: ${error.stack}`));
    page.on("request", (request) => {
      if (new URL(request.url()).hostname !== "127.0.0.1") this.troubles.push(`asks elsewhere: ${request.url()}`);
    });
    return page;
  }

  /** Has axe-core judge the page as it is; every violation is a failure. */
  async judge(page, name) {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    const told = violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
    if (told.length) throw new Error(`${name} is not accessible:\n${told.join("\n")}`);
  }

  /** Pictures and judgements of one address in both themes and sizes. */
  async portray(address, name, ready) {
    for (const [size] of Object.entries(SIZES)) {
      for (const colorScheme of ["light", "dark"]) {
        const page = await this.page(size, { colorScheme, reducedMotion: "reduce", bypassCSP: true });
        await page.goto(address);
        await ready(page);
        await page.screenshot({ path: join(this.pictures, `${name}-${size}-${colorScheme}.png`), fullPage: true });
        await this.judge(page, `${name} (${size}, ${colorScheme})`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (overflow > 0) throw new Error(`${name} (${size}) is ${overflow} px too wide`);
        await page.context().close();
      }
    }
  }

  async close() {
    await this.chromium.close();
  }
}
