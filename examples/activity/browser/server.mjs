// The server under test, and the command line that posts to it.

import { spawn } from "node:child_process";
import { join } from "node:path";
import { until } from "./cluster.mjs";

export class Server {
  constructor(binaries, profile) {
    this.binaries = binaries;
    this.profile = profile;
    this.ports = { gRPC: 0, web: 0, metrics: 0 };
  }

  /** Starts it, at the ports that it had before if it had any, and waits until it is ready. */
  async start() {
    const { gRPC, web, metrics } = this.ports;
    const ports = ["--port", gRPC, "--web-port", web, "--metrics-port", metrics].map(String);
    const environment = { PATH: process.env.PATH, HIGHWATER_CONFIG: this.profile };
    this.process = spawn(join(this.binaries, "activity"), ["serve", ...ports], { env: environment, stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    this.process.stderr.on("data", (data) => { log += data; });
    await until("the server is ready", () => {
      if (this.process.exitCode !== null) throw new Error(`the server ended: ${log}`);
      return /: ready\n/.test(log);
    });
    for (const what of Object.keys(this.ports)) {
      this.ports[what] = Number(log.match(new RegExp(`${what} listens address=127\\.0\\.0\\.1:(\\d+)`))[1]);
    }
    return this;
  }

  get page() {
    return `http://127.0.0.1:${this.ports.web}/`;
  }

  /** Ends it: with SIGKILL it can say nothing any more. */
  async end(signal) {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = new Promise((resolve) => this.process.on("close", resolve));
    this.process.kill(signal);
    await ended;
  }

  /** Posts events by the command line: what it printed, a line for each. */
  add(events) {
    return new Promise((resolve, reject) => {
      const environment = { PATH: process.env.PATH, ADDRESS: `127.0.0.1:${this.ports.gRPC}` };
      const command = spawn(join(this.binaries, "activity-cli"), ["add", "-"], { env: environment, stdio: ["pipe", "pipe", "pipe"] });
      let [printed, complaint] = ["", ""];
      command.stdout.on("data", (data) => { printed += data; });
      command.stderr.on("data", (data) => { complaint += data; });
      command.on("close", (code) => {
        if (code === 0) resolve(printed.trimEnd().split("\n").map((line) => JSON.parse(line)));
        else reject(new Error(`activity-cli: ${complaint}`));
      });
      command.stdin.on("error", () => {}); // it has ended early, and says why
      command.stdin.end(events.map((event) => `${JSON.stringify(event)}\n`).join(""));
    });
  }
}
