"""Rendered objects: against Kubernetes' schemas, against each other, and against what Highwater asks of its pods."""

import functools
import json

import importlib_resources
import jsonschema
import referencing
import yaml

# The oldest that the chart takes, the one from which on racks work, and the newest that is known.
VERSIONS = ["1.30.0", "1.35.0", "1.37.0"]
# Kinds whose schemas are not Kubernetes' own.
FOREIGN = {"Certificate", "ServiceMonitor", "PrometheusRule"}
# How long `highwater serve` takes at most from SIGTERM on, seconds.
SHUTDOWN_SECONDS = 20

CHECKED = 0


@functools.cache
def validator(version, kind, api_version):
    """kubernetes-validate brings the schemas; its own function reads all definitions anew for each object."""
    folder = importlib_resources.files("kubernetes_validate").joinpath(f"kubernetes-json-schema/v{version}-local-strict")
    # rbac.authorization.k8s.io/v1 is in a file of rbac-v1.
    group, _, version_of_kind = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.split(".")[0], version_of_kind]))
    schema = json.loads(folder.joinpath(f"{name}.json").read_text())
    registry = referencing.Resource.from_contents(schema) @ definitions(folder)
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


@functools.cache
def definitions(folder):
    known = referencing.Resource.from_contents(json.loads(folder.joinpath("_definitions.json").read_text()))
    return known @ referencing.Registry()


def check(documents, values):
    """Everything that is wrong with the cluster's objects."""
    checks = [pods_are_confined, references_lead_somewhere, ports_and_volumes_fit, services_find_pods, nodes_are_stopped_in_time]
    checks += [nodes_find_each_other, monitoring_fits, certificates_name_nodes]
    return check_each(documents, values, checks)


def check_each(documents, values, checks):
    """What the schemas, names that come twice, and these checks find wrong."""
    global CHECKED
    CHECKED += len(documents)
    wrong = [why for document in documents for why in by_schema(document)]
    names = [(document["kind"], document["metadata"]["name"]) for document in documents]
    wrong += [f"{kind} {name} comes twice" for kind, name in set(names) if names.count((kind, name)) > 1]
    if wrong:
        return wrong
    rendered = Rendered(documents)
    return [why for one in checks for why in one(rendered, values)]


def by_schema(document):
    if document["kind"] in FOREIGN:
        return
    for version in VERSIONS:
        for error in validator(version, document["kind"], document["apiVersion"]).iter_errors(document):
            place = ".".join(str(step) for step in error.path)
            yield f"{document['kind']} {document['metadata']['name']}, Kubernetes {version}: {place}: {error.message}"


class Rendered:
    """The objects by kind and name, and the pods among them."""

    def __init__(self, documents):
        self.documents = documents
        self.named = {(document["kind"], document["metadata"]["name"]): document for document in documents}
        self.pods = {}
        for document in documents:
            if document["kind"] == "Pod":
                self.pods[document["metadata"]["name"]] = (document["metadata"]["labels"], document["spec"])
            elif document["kind"] in ("StatefulSet", "Deployment", "Job"):
                template = document["spec"]["template"]
                self.pods[document["metadata"]["name"]] = (template["metadata"]["labels"], template["spec"])

    @property
    def nodes(self):
        return self.only("StatefulSet")

    def of(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def only(self, kind):
        (found,) = self.of(kind)
        return found

    def node_container(self):
        (container,) = self.nodes["spec"]["template"]["spec"]["containers"]
        return container

    def node_environment(self):
        return {variable["name"]: variable.get("value") for variable in self.node_container()["env"]}


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def pods_are_confined(rendered, _values):
    for pod, (_, spec) in rendered.pods.items():
        security = spec["securityContext"]
        if not security["runAsNonRoot"] or security["runAsUser"] == 0 or security["seccompProfile"]["type"] != "RuntimeDefault":
            yield f"{pod} runs as root, or with every call of the system"
        if spec.get("automountServiceAccountToken", True) and not pod.endswith("-certificates"):
            yield f"{pod} has a token for Kubernetes"
        for container in containers(spec):
            own = container["securityContext"]
            if own["allowPrivilegeEscalation"] or not own["readOnlyRootFilesystem"] or own["capabilities"]["drop"] != ["ALL"]:
                yield f"{pod}: {container['name']} may do more than it needs"


def references_lead_somewhere(rendered, values):
    certificates = values.get("certificates", {})
    given = {("ConfigMap", certificates.get(name)) for name in ("caConfigMap", "crlConfigMap")}
    promised = {("Secret", name) for name in secrets_made(rendered, certificates)}
    for pod, (_, spec) in rendered.pods.items():
        wanted = {("ServiceAccount", spec["serviceAccountName"])}
        for volume in spec["volumes"]:
            wanted |= {(kind, name) for kind, name, optional in sources(volume) if not optional}
        for kind, name in sorted(wanted - rendered.named.keys() - given - promised):
            yield f"{pod} wants the {kind} {name}, which nobody makes"


def sources(volume):
    """(kind, name, optional) of what a volume is made of."""
    parts = [*volume.get("projected", {}).get("sources", []), volume]
    for part in parts:
        if "secret" in part:
            secret = part["secret"]
            yield "Secret", secret.get("secretName", secret.get("name")), secret.get("optional", False)
        if "configMap" in part:
            yield "ConfigMap", part["configMap"]["name"], part["configMap"].get("optional", False)


def secrets_made(rendered, certificates):
    """By the chart's job, by cert-manager, or as NOTES.txt asks for them."""
    made = {document["spec"]["secretName"] for document in rendered.of("Certificate")}
    for document in rendered.of("ConfigMap"):
        if "kustomization.yaml" in document["data"]:
            made |= {secret["name"] for secret in yaml.safe_load(document["data"]["kustomization.yaml"])["secretGenerator"]}
    if certificates.get("mode") == "existing":
        fullname = rendered.nodes["metadata"]["name"]
        nodes = max(rendered.nodes["spec"]["replicas"], len(rendered.node_environment()["HIGHWATER_BOOTSTRAP"].split(",")))
        made |= {f"{fullname}-{ordinal}-tls" for ordinal in range(nodes)}
        made |= {f"{fullname}-client-default-operator"}
    return made


def ports_and_volumes_fit(rendered, _values):
    claims = [claim["metadata"]["name"] for claim in rendered.nodes["spec"]["volumeClaimTemplates"]]
    for pod, (_, spec) in rendered.pods.items():
        volumes = [volume["name"] for volume in spec["volumes"]] + claims
        for container in containers(spec):
            for mount in container["volumeMounts"]:
                if mount["name"] not in volumes:
                    yield f"{pod}: {container['name']} mounts {mount['name']}, which is no volume"
            ports = [port["name"] for port in container.get("ports", [])]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container and container[probe]["httpGet"]["port"] not in ports:
                    yield f"{pod}: {probe} asks at a port that {container['name']} does not have"


def services_find_pods(rendered, _values):
    (labels, spec) = rendered.pods[rendered.nodes["metadata"]["name"]]
    ports = {port["name"] for container in spec["containers"] for port in container["ports"]}
    for service in rendered.of("Service"):
        name = service["metadata"]["name"]
        selector = dict(service["spec"]["selector"])
        selector.pop("statefulset.kubernetes.io/pod-name", None)
        if not selector.items() <= labels.items():
            yield f"Service {name} finds no node"
        if not {port["targetPort"] for port in service["spec"]["ports"]} <= ports:
            yield f"Service {name} leads to a port that nodes do not have"
        others = [pod for pod, (labels_of, _) in rendered.pods.items() if labels_of != labels and selector.items() <= labels_of.items()]
        if others:
            yield f"Service {name} finds {others}, too"


def nodes_are_stopped_in_time(rendered, _values):
    spec = rendered.nodes["spec"]["template"]["spec"]
    sleep = rendered.node_container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    if spec["terminationGracePeriodSeconds"] < sleep + SHUTDOWN_SECONDS + 5:
        yield "nodes are killed before they have stopped"


def nodes_find_each_other(rendered, values):
    spec, environment = rendered.nodes["spec"], rendered.node_environment()
    headless = rendered.named["Service", spec["serviceName"]]["spec"]
    if headless["clusterIP"] != "None" or headless["publishNotReadyAddresses"] is not True:
        yield "nodes do not find each other before they are ready"
    if spec["podManagementPolicy"] != "Parallel":
        yield "nodes wait for each other to become ready"
    founders = environment["HIGHWATER_BOOTSTRAP"].split(",")
    if founders != [f"{rendered.nodes['metadata']['name']}-{ordinal}" for ordinal in range(values.get("foundingNodes", 3))]:
        yield f"{founders} found the cluster"
    namespace, domain = rendered.nodes["metadata"]["namespace"], values.get("clusterDomain", "cluster.local")
    below = f"{spec['serviceName']}.{namespace}.svc.{domain}:7400"
    if environment["HIGHWATER_SEEDS"].split(",") != [f"{founder}.{below}" for founder in founders]:
        yield f"seeds are {environment['HIGHWATER_SEEDS']}"
    yield from nodes_are_found_outside(rendered, values.get("external", {}), environment["HIGHWATER_ADVERTISE"], below)


def nodes_are_found_outside(rendered, external, advertised, inside):
    services = [service for service in rendered.of("Service") if service["metadata"]["name"].endswith("-external")]
    if not external.get("enabled"):
        if advertised != f"$(POD_NAME).{inside}" or services:
            yield f"nodes advertise {advertised}"
        return
    if len(services) != rendered.nodes["spec"]["replicas"]:
        yield f"{len(services)} Services lead to nodes from outside"
    for ordinal, service in enumerate(services):
        spec, (port,) = service["spec"], service["spec"]["ports"]
        pod = spec["selector"]["statefulset.kubernetes.io/pod-name"]
        expanded = advertised.replace("$(POD_NAME)", pod).replace("$(POD_INDEX)", str(ordinal))
        outside = external["host"].replace("$(POD_NAME)", pod)
        if expanded != f"{outside}:{port.get('nodePort', port['port'])}" or not spec["publishNotReadyAddresses"]:
            yield f"{pod} advertises {expanded}, where its Service is not"


def monitoring_fits(rendered, _values):
    for monitor in rendered.of("ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        labels = monitor["spec"]["selector"]["matchLabels"]
        found = [service for service in rendered.of("Service") if labels.items() <= service["metadata"]["labels"].items()]
        if len(found) != 1 or endpoint["port"] not in [port["name"] for port in found[0]["spec"]["ports"]]:
            yield "the ServiceMonitor finds no port, or several"
        job = found[0]["metadata"]["labels"].get(monitor["spec"].get("jobLabel")) if found else None
        if not job or "highwater" not in job:
            yield f"Prometheus calls the nodes {job}, which no alert looks for"
        if "HIGHWATER_ADMIN_OPEN_METRICS" not in rendered.node_environment():
            yield "the ServiceMonitor asks for what nodes keep to themselves"


def certificates_name_nodes(rendered, values):
    cluster = values.get("clusterName", "highwater")
    certificates = {document["spec"]["secretName"]: document["spec"] for document in rendered.of("Certificate")}
    if not certificates:
        return
    for ordinal in range(rendered.nodes["spec"]["replicas"]):
        node = f"{rendered.nodes['metadata']['name']}-{ordinal}"
        certificate = certificates[f"{node}-tls"]
        if certificate["uris"] != [f"spiffe://{cluster}/node/{node}"] or "server auth" not in certificate["usages"]:
            yield f"the certificate of {node} is not that of a node"
        if f"node.{cluster}.highwater" not in certificate["dnsNames"]:
            yield f"stock clients cannot verify {node}"
    for client in values["certificates"]["clients"]:
        tenant, name = client.split("/")
        uris = [certificate["uris"] for certificate in certificates.values() if "server auth" not in certificate["usages"]]
        if [f"spiffe://{cluster}/tenant/{tenant}/client/{name}"] not in uris:
            yield f"{client} gets no certificate"
