// A development cluster to look at, and the commands that fill it.

import { spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

const PATIENCE_MS = 120_000;
const METRICS_PATIENCE_MS = 5_000;

export class Cluster {
  constructor(binary, directory) {
    this.binary = binary;
    this.directory = directory;
    this.said = "";
  }

  /** Starts three nodes and waits until they say that they are ready. */
  async start() {
    rmSync(this.directory, { recursive: true, force: true });
    this.process = spawn(this.binary, ["dev", "--port", "0", "--data-dir", this.directory], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (data) => { this.said += data; });
    await until("the cluster is ready", () => /Ctrl-C stops it/.test(this.said));
    this.consoles = [...this.said.matchAll(/^ {2}n\d .* console (http:\S+)/gm)].map((match) => match[1]);
    this.pids = [...this.said.matchAll(/^ {2}n\d {2}pid (\d+)/gm)].map((match) => Number(match[1]));
    return this;
  }

  /** Runs a command of the command line, with `input`, and gives what it printed. */
  run(args, input = "") {
    return new Promise((resolve, reject) => {
      const env = { ...process.env, HIGHWATER_CONFIG: join(this.directory, "profile.toml") };
      const command = spawn(this.binary, args, { env, stdio: ["pipe", "pipe", "pipe"] });
      let printed = "";
      let complaint = "";
      command.stdout.on("data", (data) => { printed += data; });
      command.stderr.on("data", (data) => { complaint += data; });
      command.on("close", (code) => (code === 0 ? resolve(printed) : reject(new Error(`highwater ${args.join(" ")}: ${complaint}`))));
      command.stdin.on("error", () => {}); // it has ended early, and says why
      command.stdin.end(input);
    });
  }

  /** What each node tells Prometheus; nothing from one that does not answer. */
  metrics() {
    const told = (address) => fetch(`${address}/metrics`, { signal: AbortSignal.timeout(METRICS_PATIENCE_MS) }).then((answer) => answer.text());
    return Promise.all(this.consoles.map((address) => told(address).catch(() => "")));
  }

  /** What a node has logged since it was started last. */
  log(name) {
    return readFileSync(join(this.directory, "logs", `${name}.log`), "utf8");
  }

  /** Produces for as long as it is not stopped. */
  produce(topic, value, pauseMs) {
    const env = { ...process.env, HIGHWATER_CONFIG: join(this.directory, "profile.toml") };
    const command = spawn(this.binary, ["produce", topic, "--key-separator", "="], { env, stdio: ["pipe", "ignore", "ignore"] });
    command.stdin.on("error", () => {});
    let count = 0;
    const timer = setInterval(() => command.stdin.write(`${value(count++)}\n`), pauseMs);
    return () => {
      clearInterval(timer);
      command.stdin.end();
    };
  }

  async stop() {
    if (!this.process) return;
    const ended = new Promise((resolve) => this.process.on("close", resolve));
    this.process.kill("SIGTERM");
    await ended;
  }
}

/** Waits until something is so. */
export async function until(what, isSo) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`in vain: ${what}`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}
