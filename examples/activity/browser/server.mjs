// The server under test, and the command line that posts to it.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { until } from "./cluster.mjs";

// Below what the system hands out by itself, and below what other tests reserve: a server that is down keeps its ports.
const [PORT_FIRST, PORT_END] = [10_000, 12_000];
// Different processes begin at different places, and none takes a port twice.
let tried = (process.pid * 97) % (PORT_END - PORT_FIRST);

async function freePort() {
  for (let step = PORT_FIRST; step < PORT_END; step += 1) {
    tried = (tried + 1) % (PORT_END - PORT_FIRST);
    const port = PORT_FIRST + tried;
    if (await isFree(port)) return port;
  }
  throw new Error(`there is no free port from ${PORT_FIRST} to ${PORT_END - 1}`);
}

function isFree(port) {
  return new Promise((resolve) => {
    const listener = createServer();
    listener.once("error", () => resolve(false));
    listener.listen(port, "127.0.0.1", () => listener.close(() => resolve(true)));
  });
}

export class Server {
  constructor(binaries, profile) {
    this.binaries = binaries;
    this.profile = profile;
    this.ports = null;
  }

  /** Starts it, at the ports that it had before if it had any, and waits until it is ready. */
  async start() {
    this.ports ??= { gRPC: await freePort(), web: await freePort(), metrics: await freePort() };
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
