"""Looks at deploy/compose, and runs the commands of its services with the environment that they have there.

usage: compose.py HIGHWATER_BINARY
"""

import pathlib
import subprocess
import sys
import tempfile

import yaml

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "deploy" / "compose"
# Of the programs, by which images are called.
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
NODES = ["n1", "n2", "n3"]
# Where nodes find the certificates.
CERTIFICATES = "/certificates"


def check(holds, why):
    if not holds:
        sys.exit(f"FAILED: compose: {why}")


def run(binary, arguments, environment=None):
    command = [binary, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"{' '.join(arguments)} fails: {done.stderr}")
    return done.stdout


def read(name):
    return yaml.safe_load((DIRECTORY / name).read_text())


def mounts(service):
    """By path inside, what is mounted there and how."""
    split = [volume.split(":") for volume in service.get("volumes", [])]
    return {parts[1]: (parts[0], parts[2:]) for parts in split}


def check_references(compose):
    """Everything that a service names is there."""
    for name, service in compose["services"].items():
        check(service.get("image"), f"{name} has no image")
        for other in service.get("depends_on", []):
            check(other in compose["services"], f"{name} waits for {other}, which is not there")
        for source, _ in mounts(service).values():
            if source.startswith("."):
                check((DIRECTORY / source).exists(), f"{name} mounts {source}, which is not there")
            else:
                check(source in compose["volumes"], f"{name} mounts the volume {source}, which is not declared")


def check_ports(compose):
    """What is reached from outside is reached from this machine only."""
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            check(port.startswith("127.0.0.1:"), f"{name} can be reached from everywhere at {port}")


def check_node(binary, name, service):
    """The node can be started with its environment, and every variable is a setting."""
    check(service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} may do more than it needs")
    check(mounts(service)["/var/lib/highwater"][0] == name, f"{name} has another node's data")
    check(mounts(service)[CERTIFICATES] == ("certificates", ["ro"]), f"{name} may write the certificates")
    made = service["depends_on"]["certificates"]
    check(made == {"condition": "service_completed_successfully"}, f"{name} does not wait for its certificate")
    environment = service["environment"]
    printed = run(binary, [*service["command"], "--print-config"], environment)
    check("cannot start" not in printed, f"{name} cannot start: {printed}")
    for variable in environment:
        check(f"# environment variable {variable}\n" in printed, f"{name}: {variable} is no setting")
    settings = tomllib.loads(printed)
    check(settings["node"] == name, f"{name} is called {settings['node']}")
    check(settings["bootstrap"] == NODES, f"{name} founds with {settings['bootstrap']}")
    check(settings["seeds"] == [f"{node}:7400" for node in NODES], f"{name} asks {settings['seeds']}")
    check(settings["admin_open_metrics"], f"{name} tells Prometheus nothing")
    check(settings["advertise"] == f"{name}:7400", f"{name} is reached at {settings['advertise']}")
    return [settings["tls"][file] for file in ("ca", "cert", "key")]


def make_certificates(binary, service, directory):
    """Runs the service that makes them, twice; gives the names of the files."""
    place = next(path for path, (source, _) in mounts(service).items() if source == "certificates")
    arguments = [argument.replace(place, directory) for argument in service["command"]]
    check(arguments != service["command"], "the certificates are not written into their volume")
    run(binary, arguments)
    authority = (pathlib.Path(directory) / "ca.pem").read_bytes()
    run(binary, arguments)
    check((pathlib.Path(directory) / "ca.pem").read_bytes() == authority, "the authority is made anew each time")
    return {path.name for path in pathlib.Path(directory).iterdir()}


def main(binary):
    compose = read("compose.yaml")
    services = compose["services"]
    check_references(compose)
    check_ports(compose)
    wanted = []
    for name in NODES:
        wanted += check_node(binary, name, services[name])
    for name in [*NODES, "certificates"]:
        check(services[name]["image"].endswith(f"highwater:{VERSION}}}"), f"{name} runs {services[name]['image']}, this is {VERSION}")
    racks = {services[name]["environment"]["HIGHWATER_RACK"] for name in NODES}
    check(len(racks) == len(NODES), f"the nodes stand in {racks}")

    profile = tomllib.loads((DIRECTORY / "profile.toml").read_text())
    check(profile["addresses"] == [f"{node}:7400" for node in NODES], f"the profile asks {profile['addresses']}")
    wanted += [profile[file] for file in ("ca", "cert", "key")]
    prometheus = read("prometheus.yaml")
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    check(targets == [f"{node}:7401" for node in NODES], f"Prometheus asks {targets}")
    for rules in prometheus["rule_files"]:
        check(f"/etc/prometheus/{rules}" in mounts(services["prometheus"]), f"Prometheus does not get {rules}")
    with tempfile.TemporaryDirectory() as directory:
        made = make_certificates(binary, services["certificates"], directory)
    for path in wanted:
        check(path.startswith(f"{CERTIFICATES}/"), f"{path} is not among the certificates")
        check(path.removeprefix(f"{CERTIFICATES}/") in made, f"{path} is not made: {sorted(made)}")

    datasource = read("grafana/datasources.yaml")["datasources"][0]
    check(datasource["url"] == "http://prometheus:9090", f"Grafana asks {datasource['url']}")
    provider = read("grafana/dashboards.yaml")["providers"][0]
    check(provider["options"]["path"] in mounts(services["grafana"]), "Grafana looks for dashboards elsewhere")
    print(f"ok: compose: {len(services)} services")


if __name__ == "__main__":
    main(sys.argv[1])
