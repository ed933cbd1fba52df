"""Looks at deploy/examples/compose.yaml on top of deploy/compose, and has the built programs take what their services are given.

usage: compose_examples.py DIRECTORY_OF_THE_PROGRAMS
"""

import pathlib
import re
import sys
import tempfile

import yaml

import compose
import programs
from compose import CERTIFICATES, NODES, VERSION, check, mounts
from programs import CLIENTS, DATA, STAYS

EXAMPLES = compose.DIRECTORY.parent / "examples"
IMAGE = "${HIGHWATER_EXAMPLES_IMAGE:-highwater-examples:" + VERSION + "}"
PROFILE = "/etc/highwater/profile.toml"


def merged(base, over):
    """As compose merges two files, as far as these need it: mappings are joined, commands replaced, lists appended."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merge_key(key, base.get(key), value) for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *over]
    return over


def merge_key(key, base, over):
    return over if base is None or key == "command" else merged(base, over)


def read():
    text = (EXAMPLES / "compose.yaml").read_text()
    # The file of API keys if nobody names another one: what is mounted is split at colons here.
    ours = yaml.safe_load(re.sub(r"\$\{SCHOOL_API_KEYS:-([^}]*)\}", r"\1", text))
    return compose.read("compose.yaml"), ours, merged(compose.read("compose.yaml"), ours)


def applications(services):
    """The services that are the examples' own."""
    return {name: service for name, service in services.items() if service.get("image") == IMAGE}


def environment(service):
    return {name: str(value) for name, value in service["environment"].items()}


def is_init(service):
    return service["command"][1] == "init"


def check_confined(name, service):
    check(service.get("read_only") and service.get("cap_drop") == ["ALL"], f"{name} may do more than it needs")
    check(service.get("security_opt") == ["no-new-privileges:true"], f"{name} may become somebody else")
    check(not {"privileged", "user", "cap_add", "network_mode"} & service.keys(), f"{name} asks for more than it needs")
    check(mounts(service)[CERTIFICATES] == ("certificates", ["ro"]), f"{name} may write the certificates")
    for path, (source, how) in mounts(service).items():
        check(how == ["ro"] or path == DATA and source == name, f"{name} may write {source} at {path}")


def check_files(name, service):
    """What the environment names is mounted, and what must stay lies in a volume of the service's own."""
    given, mounted = environment(service), mounts(service)
    for variable in ("HIGHWATER_CONFIG", "API_KEYS"):
        check(variable not in given or given[variable] in mounted, f"{name}: {variable} is not mounted")
    variable = STAYS.get(" ".join(service["command"][:2]))
    if variable:
        check(given.get(variable, "").startswith(f"{DATA}/"), f"{name}: {variable} is not kept")
        check(mounted.get(DATA) == (name, []), f"{name} has no volume of its own")


def check_profile(name, service, made):
    """The profile asks the nodes, and its certificate is made, and is that of the client that the service is; which one, is given back."""
    profile = compose.tomllib.loads((compose.DIRECTORY / mounts(service)[PROFILE][0]).read_text())
    check(profile["addresses"] == [f"{node}:7400" for node in NODES], f"{name} asks {profile['addresses']}")
    for file in ("ca", "cert", "key"):
        check(profile[file].startswith(f"{CERTIFICATES}/"), f"{name}: {profile[file]} is not among the certificates")
        check(profile[file].removeprefix(f"{CERTIFICATES}/") in made, f"{name}: {profile[file]} is not made")
    client = "default-operator" if is_init(service) else CLIENTS.get(" ".join(service["command"][:2]))
    for file in ("cert", "key"):
        check(pathlib.Path(profile[file]).stem == f"client-{client}", f"{name} has {profile[file]}, and is {client}")
    return client


def check_order(name, service):
    """Nobody begins before the cluster serves and its tenant is there."""
    wanted = {f"{service['command'][0]}-init": {"condition": "service_completed_successfully"}}
    if is_init(service):
        wanted = {node: {"condition": "service_healthy"} for node in NODES}
    check(service["depends_on"] == wanted, f"{name} waits for {service['depends_on']}")


def check_addresses(directory, services):
    """Services look for each other where they listen, and whoever is published listens at that port."""
    ports = {}
    for name, service in services.items():
        known = programs.in_force(directory, service["command"], environment(service))
        ports[name] = {int(known[variable]) for variable in ("PORT", "METRICS_PORT", "WEB_PORT") if variable in known}
        check("HOST" not in known or known["HOST"] == "0.0.0.0", f"{name} listens where nobody comes")
        for published in service.get("ports", []):
            check(int(published.split(":")[2]) in ports[name], f"{name} does not listen at {published}")
    for name, service in services.items():
        for variable, verb in (("STUDENTS", "students"), ("COURSES", "courses")):
            if variable not in service["environment"]:
                continue
            host, port = service["environment"][variable].removeprefix("http://").split(":")
            check(services[host]["command"] == ["school", verb], f"{name} looks for {verb} at {host}")
            asked = programs.in_force(directory, services[host]["command"], environment(services[host]))
            check(port == asked["PORT"], f"{name} asks {host} at {port}")
    hosts = [port.rsplit(":", 1)[0] for service in services.values() for port in service.get("ports", [])]
    check(len(set(hosts)) == len(hosts), f"two services are published at one port: {sorted(hosts)}")
    return ports


def check_certificates(base, over):
    """The command in our file is the cluster's with more clients, which are given back."""
    ours = [word for word in over if word not in base]
    check(set(base) <= set(over) and all(word.startswith("--client=") for word in ours), f"the certificates are made by {over}")
    return sorted(word.removeprefix("--client=").replace("/", "-") for word in ours)


def check_prometheus(services, ports):
    prometheus = compose.read("prometheus.yaml")
    (pattern,) = prometheus["scrape_config_files"]
    check("/etc/prometheus/scrape-examples.yaml" in mounts(services["prometheus"]), "Prometheus does not get the examples")
    check(pathlib.PurePath("scrape-examples.yaml").match(pattern), f"Prometheus reads {pattern}")
    (job,) = yaml.safe_load((EXAMPLES / "prometheus.yaml").read_text())["scrape_configs"]
    # Alerts about nodes look for jobs of this name.
    check("highwater" not in job["job_name"], "alerts would take the examples for nodes")
    asked = [(name, config["port"]) for config in job["dns_sd_configs"] for name in config["names"]]
    for name, port in asked:
        check(name in ports and port in ports[name], f"Prometheus asks {name} at {port}")
        check(port == 9090, f"{name} has no metrics at {port}")
    check({name for name, _ in asked} == ports.keys() - {"calc"}, "Prometheus does not ask all services")


def main(directory):
    base, ours, both = read()
    services = applications(both["services"])
    check(len(services) == 14, f"there are {sorted(services)}")
    check(set(ours["services"]) - set(services) == {"certificates", "prometheus"}, "other services of the cluster are changed")
    compose.check_references(both)
    compose.check_ports(both)
    clients = check_certificates(base["services"]["certificates"]["command"], both["services"]["certificates"]["command"])
    with tempfile.TemporaryDirectory() as place:
        made = compose.make_certificates(f"{directory}/highwater", both["services"]["certificates"], place)
    used = set()
    for name, service in services.items():
        check_confined(name, service)
        check_files(name, service)
        check_order(name, service)
        used.add(check_profile(name, service, made))
        for why in programs.refused(directory, service["command"], environment(service)):
            check(False, f"{name}: {why}")
    check(used == {*clients, "default-operator"}, f"clients {clients} are made, and {sorted(used)} used")
    serving = {name: service for name, service in services.items() if not is_init(service)}
    check_prometheus(both["services"], check_addresses(directory, serving))
    kept = set(ours["volumes"])
    mounted = {mounts(service)[DATA][0] for service in services.values() if DATA in mounts(service)}
    check(kept == mounted, f"volumes {kept} are declared, and {mounted} mounted")
    print(f"ok: compose of the examples: {len(services)} services, which the programs take")


if __name__ == "__main__":
    main(sys.argv[1])
