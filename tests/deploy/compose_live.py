"""Runs what deploy/examples/compose.yaml says without containers: one node in place of three, and every service as a process with its own
command, environment, profile and certificate. So the rules that the services `…-init` make are those that the others need.

Only what is a container's is replaced: names of hosts by loopback, ports by free ones, paths by those of a temporary directory.

usage: compose_live.py DIRECTORY_OF_THE_PROGRAMS
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import compose
import compose_examples
from compose import CERTIFICATES, check, mounts

# Until when something must have happened, seconds; longer than it takes on a loaded machine.
PATIENCE = 60
USER = ["--email", "ann@users.example", "--firstname", "Ann", "--lastname", "Lee"]
USER += ["--postaladdress", "1 Quay, Northport", "--birthdate", "1990-06-15"]


def eventually(what, holds, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (found := holds()):
        check(time.monotonic() < deadline, f"{what}: not within {patience} s")
        time.sleep(0.05)
    return found


# Below what the system hands out by itself, and below what other tests take: nobody gets a port before the program that it is for.
PORTS = range(8_000, 10_000)
# Different processes begin at different places, and none takes a port twice.
untried = (PORTS[(os.getpid() * 97 + step) % len(PORTS)] for step in range(len(PORTS)))


def free_port():
    for port in untried:
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    check(False, f"there is no free port from {PORTS.start} to {PORTS.stop - 1}")


def get(url, body=None, headers=None):
    """The answer, or nothing if there is none that is good."""
    request = urllib.request.Request(url, data=body and json.dumps(body).encode(), headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


class Machine:
    """The processes, and where they have their files and ports."""

    def __init__(self, directory, place, services):
        self.directory, self.place, self.services = directory, pathlib.Path(place), services
        self.running, self.ports = {}, {}
        self.node = f"127.0.0.1:{free_port()}"
        self.certificates = self.place / "certificates"

    def port(self, service, variable):
        return self.ports.setdefault((service, variable), free_port())

    def start(self, name, command, environment):
        with (self.place / f"{name}.log").open("w") as log:
            program = [f"{self.directory}/{command[0]}", *command[1:]]
            self.running[name] = subprocess.Popen(program, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def start_node(self, service):
        given = {name: value.replace(CERTIFICATES, str(self.certificates)) for name, value in service["environment"].items()}
        given |= {"HIGHWATER_LISTEN": self.node, "HIGHWATER_ADVERTISE": self.node, "HIGHWATER_SEEDS": self.node}
        given |= {"HIGHWATER_ADMIN_LISTEN": "127.0.0.1:0", "HIGHWATER_BOOTSTRAP": "n1", "HIGHWATER_DATA_DIR": f"{self.place}/n1"}
        self.start("n1", ["highwater", *service["command"]], given)
        tls = [f"--{flag}={given[f'HIGHWATER_{flag.upper()}']}" for flag in ("ca", "cert", "key")]
        compose.run(f"{self.directory}/highwater", ["health", "--wait=50s", f"--address={self.node}", *tls])

    def environment(self, name):
        """That of the service, with everything where it is here."""
        service = self.services[name]
        given = compose_examples.environment(service)
        given |= {"CALC_HISTORY": f"{self.place}/history"} if "CALC_HISTORY" in given else {}
        for path, (source, how) in mounts(service).items():
            if path == compose_examples.PROFILE:
                given["HIGHWATER_CONFIG"] = self.profile(name, source)
            elif source.startswith(".."):
                given = {key: value.replace(path, str(compose.DIRECTORY / source)) for key, value in given.items()}
            elif not how:
                given = {key: value.replace(path, str(self.kept(name))) for key, value in given.items()}
        listens = [] if service["command"][1] in ("init", "connect") else ["PORT", "METRICS_PORT"]
        listens += ["WEB_PORT"] if service["command"][0] == "activity" and listens else []
        given |= {variable: str(self.port(name, variable)) for variable in listens} | ({"HOST": "127.0.0.1"} if listens else {})
        there = lambda url: f"http://127.0.0.1:{self.port(url.group(1), 'PORT')}"
        return {key: re.sub(r"http://([a-z-]+):\d+", there, value) for key, value in given.items()}

    def kept(self, name):
        (self.place / f"{name}-kept").mkdir(exist_ok=True)
        return self.place / f"{name}-kept"

    def profile(self, name, source):
        text = (compose.DIRECTORY / source).read_text().replace(CERTIFICATES, str(self.certificates))
        path = self.place / f"{name}.toml"
        path.write_text(re.sub(r"addresses = .*", f'addresses = ["{self.node}"]', text))
        return str(path)

    def init(self, name):
        told = [self.ask(name, None, self.services[name]["command"]) for _ in range(2)]
        check("tenant" in told[0] and "topic" in told[0], f"{name} makes nothing: {told[0]}")
        check("nothing was changed" in told[1], f"{name} is not done the first time: {told[1]}")

    def ask(self, name, entered, command, *more):
        program = [f"{self.directory}/{command[0]}", *command[1:], *more]
        ended = subprocess.run(program, env=self.environment(name), input=entered, capture_output=True, text=True, timeout=PATIENCE)
        check(ended.returncode == 0, f"{name}: {' '.join(command)}: {ended.stderr}{ended.stdout}")
        return ended.stdout

    def is_ready(self, name):
        """Asks where Prometheus and probes ask."""
        check(self.running[name].poll() is None, f"{name} has ended: {self.log(name)}")
        return get(f"http://127.0.0.1:{self.port(name, 'METRICS_PORT')}/readyz")

    def log(self, name):
        return (self.place / f"{name}.log").read_text()[-2000:]

    def stop(self):
        for name, process in self.running.items():
            if name != "n1":
                process.terminate()
        for name, process in self.running.items():
            if name == "n1":
                continue
            # What compose.yaml gives them.
            check(process.wait(timeout=15) == 0, f"{name} does not end in order: {self.log(name)}")

    def kill(self):
        for process in self.running.values():
            process.kill()
            process.wait()


def use(machine):
    """Something goes through each application, and all of its services have their part in it."""
    at = lambda name, variable: f"127.0.0.1:{machine.port(name, variable)}"
    machine.ask("calc", None, ["users-cli", "create"], *USER, "--address", at("users", "PORT"))
    outbox = machine.kept("users-email") / "outbox.mbox"
    eventually("a welcome", lambda: outbox.exists() and "To: <ann@users.example>" in outbox.read_text())
    eventually("51 users in months", lambda: '"users":51' in (get(f"http://{at('users-metrics', 'PORT')}/months.json") or ""))

    event = '{"id":1,"deployment_id":1,"message":"rollout begins"}'
    machine.ask("calc", None, ["activity-cli", "--address", at("activity", "PORT"), "add", event])
    check("rollout begins" in machine.ask("calc", None, ["activity-cli", "--address", at("activity", "PORT"), "list", "1"]), "no event is listed")
    check("<html" in get(f"http://{at('activity', 'WEB_PORT')}/"), "activity has no page")

    answers = machine.ask("calc", "add 2 5\nnp 2 12\n", machine.services["calc"]["command"])
    check(answers == "7\n3 37\n", f"calc answers {answers}")
    journal = machine.kept("calc-log") / "calc.jsonl"
    eventually("results in the log of calc", lambda: journal.exists() and '"3 37"' in journal.read_text())

    gateway = f"http://{at('school-gateway', 'PORT')}/v1"
    (key,) = [line for line in (compose_examples.EXAMPLES / "api-keys").read_text().splitlines() if not line.startswith("#")]
    known = {"x-api-key": key, "prefer": "wait=20"}
    for path, body in (("courses", {"id": "logic", "title": "Logic", "credits": 3}), ("students", {"id": "ada", "name": "Ada", "email": "ada@example.org"})):
        told = get(f"{gateway}/{path}", body, known)
        check(told and '"applied"' in told, f"the gateway answers {told}")
    eventually("the student, read", lambda: "Ada" in (get(f"{gateway}/students/ada", headers=known) or ""))
    check(get(f"{gateway}/students/ada") is None, "the gateway wants no key")


def main(directory):
    _, _, both = compose_examples.read()
    services = compose_examples.applications(both["services"])
    with tempfile.TemporaryDirectory() as place:
        machine = Machine(directory, place, services)
        command = both["services"]["certificates"]["command"]
        compose.run(f"{directory}/highwater", [word.replace("/var/lib/highwater", str(machine.certificates)) for word in command])
        try:
            machine.start_node(both["services"]["n1"])
            for name in services:
                if name.endswith("-init"):
                    machine.init(name)
            serving = [name for name, service in services.items() if service["command"][1] not in ("init", "connect")]
            for name in serving:
                machine.start(name, services[name]["command"], machine.environment(name))
            for name in serving:
                eventually(f"{name} is ready", lambda: machine.is_ready(name))
            use(machine)
            machine.stop()
        finally:
            machine.kill()
    print(f"ok: the examples' services with their own certificates: {len(serving)} became ready, and were used")


if __name__ == "__main__":
    main(sys.argv[1])
