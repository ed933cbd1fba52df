"""The examples' rendered objects: against each other, and against what the built programs take and do."""

import functools
import json
import os
import pathlib

import objects
import programs
from objects import containers, sources
from programs import CLIENTS, DATA, STAYS

APPLICATIONS = ("users", "activity", "calc", "school")
# The variables that say where a service listens, by the names of the ports.
PORTS = {"grpc": ("PORT",), "http": ("WEB_PORT", "PORT"), "metrics": ("METRICS_PORT",)}
# Requests that are being answered when a service is told to stop get so long, seconds.
DRAIN_SECONDS = 5
# Where the programs are; nothing if they are not built, and what needs them is skipped.
PROGRAMS = os.environ.get("PROGRAMS")


def check(documents, values):
    """Everything that is wrong."""
    checks = [objects.pods_are_confined, pods_have_what_they_need_and_no_more, references_lead_somewhere, mounts_and_probes_fit]
    checks += [services_find_pods, services_find_each_other, what_must_stay_stays, pods_are_stopped_in_time, everything_is_there]
    checks += [programs_take_it, programs_listen_there] if PROGRAMS else []
    return objects.check_each(documents, values, checks)


def works(rendered):
    """(name, labels, description, container, command, environment) of each container of each pod."""
    for name, (labels, spec) in rendered.pods.items():
        for container in containers(spec):
            environment = {variable["name"]: variable["value"] for variable in container["env"]}
            yield name, labels, spec, container, " ".join(container["command"]), environment


def is_init(command):
    return command.endswith(" init")


def cluster_of(values):
    return {"name": "highwater", "operator": "default/operator", **values.get("cluster", {})}


def pods_have_what_they_need_and_no_more(rendered, values):
    cluster = cluster_of(values)
    for name, _, spec, _, command, _ in works(rendered):
        client = cluster["operator"].replace("/", "-").replace("_", "-") if is_init(command) else CLIENTS.get(command)
        wanted = {("ConfigMap", f"{cluster['name']}-profile"), ("Secret", f"{cluster['name']}-client-{client}")}
        if command == "school gateway":
            wanted.add(("Secret", api_keys_secret(rendered, values)))
        found = {(kind, source) for volume in spec["volumes"] for kind, source, _ in sources(volume)}
        if found != wanted or len(spec["volumes"]) != len(wanted):
            yield f"{name} ({command}) has the volumes {sorted(found)}, and needs {sorted(wanted)}"
        for volume in spec["volumes"]:
            if "secret" in volume and volume["secret"]["defaultMode"] != 0o400:
                yield f"{name}: others may read {volume['name']}"


def release_of(rendered):
    labels = {document["metadata"]["labels"]["app.kubernetes.io/instance"] for document in rendered.documents}
    (release,) = labels
    return release


def api_keys_secret(rendered, values):
    return values.get("school", {}).get("apiKeysSecret") or f"{release_of(rendered)}-school-api-keys"


def references_lead_somewhere(rendered, values):
    """What is not the cluster's is given, or is here and has the keys that are wanted."""
    given = values.get("school", {}).get("apiKeysSecret")
    theirs = f"{cluster_of(values)['name']}-"
    for name, (_, spec) in rendered.pods.items():
        if "serviceAccountName" in spec:
            yield f"{name} wants an account"
        for volume in spec["volumes"]:
            for kind, source, _ in sources(volume):
                if source == given or source.startswith((f"{theirs}client-", f"{theirs}profile")):
                    continue
                if (kind, source) not in rendered.named:
                    yield f"{name} wants the {kind} {source}, which nobody makes"
                elif any(item["key"] not in rendered.named[kind, source]["data"] for item in volume["secret"]["items"]):
                    yield f"{name} wants what the {kind} {source} has not"


def mounts_and_probes_fit(rendered, _values):
    for name, _, spec, container, command, environment in works(rendered):
        volumes = {volume["name"]: volume for volume in spec["volumes"]} | {claim: None for claim in claims(rendered, name)}
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        if set(mounted.values()) != volumes.keys():
            yield f"{name} mounts {sorted(mounted.values())}, and has {sorted(volumes)}"
        if mounted.get("/etc/highwater/tls") != "tls":
            yield f"{name}: certificates are not where the profile says"
        if environment["HIGHWATER_CONFIG"] != "/etc/highwater/profile/profile.toml" or mounted.get("/etc/highwater/profile") != "profile":
            yield f"{name}: the profile is not mounted where it is looked for"
        keys = pathlib.PurePath(environment.get("API_KEYS", "/etc/highwater/api-keys/api-keys"))
        if ("API_KEYS" in environment) != ("api-keys" in volumes) or "api-keys" in volumes and mounted.get(str(keys.parent)) != "api-keys":
            yield f"{name}: API keys are not where they are looked for"
        ports = [port["name"] for port in container.get("ports", [])]
        for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            if not ports:
                continue
            if container.get(probe, {}).get("httpGet") != {"path": path, "port": "metrics"} or "metrics" not in ports:
                yield f"{name}: {probe} asks where {command} says nothing about it"


def claims(rendered, name):
    document = rendered.named.get(("StatefulSet", name), {"spec": {}})
    return [claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])]


def services_find_pods(rendered, _values):
    services = {service["metadata"]["name"]: service["spec"] for service in rendered.of("Service")}
    for name, labels, _, container, _, _ in works(rendered):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if ports and name not in services:
            yield f"{name} has no Service"
    for name, spec in services.items():
        found = [pod for pod, (labels, _) in rendered.pods.items() if spec["selector"].items() <= labels.items()]
        if found != [name]:
            yield f"Service {name} finds {found}"
            continue
        (container,) = rendered.pods[name][1]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        if {port["name"]: port["port"] for port in spec["ports"]} != ports or any(port["targetPort"] != port["name"] for port in spec["ports"]):
            yield f"Service {name} leads to {spec['ports']}, and there is {ports}"
    for document in rendered.of("StatefulSet"):
        if document["spec"]["serviceName"] not in services:
            yield f"{document['metadata']['name']} has no Service of its own"


def services_find_each_other(rendered, _values):
    commands = {name: command for name, _, _, _, command, _ in works(rendered)}
    for name, _, _, _, _, environment in works(rendered):
        for variable, wanted in (("STUDENTS", "school students"), ("COURSES", "school courses")):
            if variable not in environment:
                continue
            host, port = environment[variable].removeprefix("http://").split(":")
            if commands.get(host) != wanted:
                yield f"{name} looks for {wanted} at {host}"
                continue
            service = rendered.named["Service", host]["spec"]
            if int(port) not in [offered["port"] for offered in service["ports"] if offered["name"] == "grpc"]:
                yield f"{name} asks {host} at {port}"


def what_must_stay_stays(rendered, _values):
    for name, _, _, container, command, environment in works(rendered):
        data = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        if command not in STAYS:
            if data or claims(rendered, name):
                yield f"{name} may write to {data}"
            continue
        if claims(rendered, name) != ["data"] or data != [DATA]:
            yield f"{name} has no volume for what must stay"
        elif str(pathlib.PurePath(environment.get(STAYS[command], "")).parent) != data[0]:
            yield f"{name} does not keep its {STAYS[command]} in its volume"
        elif rendered.named["StatefulSet", name]["spec"]["replicas"] != 1:
            yield f"{name} would have several files"


def pods_are_stopped_in_time(rendered, _values):
    for name, _, spec, container, _, _ in works(rendered):
        if not container.get("ports"):
            continue
        sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        if spec["terminationGracePeriodSeconds"] < sleep + DRAIN_SECONDS + 3:
            yield f"{name} is killed before it has stopped"


def everything_is_there(rendered, values):
    """Each application that is not turned off, with all that it consists of, and what prepares the cluster for it."""
    wanted = {application for application in APPLICATIONS if values.get(application, {}).get("enabled", True)}
    found = sorted(command for *_, command, _ in works(rendered) if not is_init(command))
    if found != sorted(command for command in CLIENTS if command.split()[0] in wanted):
        yield f"what runs is {found}"
    prepared = {command.split()[0] for *_, command, _ in works(rendered) if is_init(command)}
    if prepared != (wanted if cluster_of(values)["operator"] else set()):
        yield f"the cluster is prepared for {sorted(prepared)}"
    if len({document["metadata"]["namespace"] for document in rendered.documents}) > 1:
        yield "objects are in several namespaces"
    for name, _, _, container, command, _ in works(rendered):
        if (command == "calc connect") != bool(container.get("stdin") and container.get("tty")):
            yield f"{name}: nobody can talk to it, or somebody to what does not listen"


@functools.cache
def refused(command, environment):
    return programs.refused(PROGRAMS, json.loads(command), json.loads(environment))


def programs_take_it(rendered, _values):
    """Command line and environment, by the built programs. A pod's image has each program in its path."""
    for name, _, _, container, _, environment in works(rendered):
        for why in refused(json.dumps(container["command"] + container.get("args", [])), json.dumps(environment)):
            yield f"{name}: {why}"


def programs_listen_there(rendered, _values):
    for name, _, _, container, command, environment in works(rendered):
        known = programs.in_force(PROGRAMS, container["command"], environment)
        for port in container.get("ports", []):
            variable = next(variable for variable in PORTS[port["name"]] if variable in known)
            if int(known[variable]) != port["containerPort"]:
                yield f"{name}: {command} listens at {known[variable]}, not at {port['containerPort']}"
        if container.get("ports") and known["HOST"] not in ("0.0.0.0", "::"):
            yield f"{name} listens where nobody comes"
