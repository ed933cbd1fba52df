"""The examples' Helm chart, judged as the cluster's is (chart.py), and against that one: what the README has the cluster's chart make
is what the pods of this one want.

`tests/deploy/run` installs what this needs and runs it. With PROGRAMS, the directory of the built programs, each container's command line and
environment is given to its program.
"""

import base64
import re
import subprocess

import yaml

import charts
import examples_objects
import objects
from charts import Wrong

PLAIN_HEAD = """\
# The example applications on Kubernetes without Helm, beside the cluster of deploy/kubernetes/highwater.yaml. This is the chart in
# deploy/examples/chart as it renders by default, written by `tests/deploy/run --write`; the chart's README says what it consists of.
#
# First make a secret highwater-client-TENANT-NAME with tls.crt, tls.key and ca.crt for each client that is named here, as
# docs/kubernetes.md tells, and a key for whoever may ask the school:
#
#   kubectl -n highwater create secret generic examples-school-api-keys --from-literal=api-keys=AT_LEAST_16_LETTERS
#   kubectl apply -f deploy/examples/kubernetes.yaml
#
# Before you apply a later version of this file, delete the job, which cannot be changed, and is to run again:
#
#   kubectl -n highwater delete job examples-init --ignore-not-found
"""
# A key that is made is another one each time.
PLAIN_VALUES = {"school": {"apiKeysSecret": "examples-school-api-keys"}}
CHART = charts.Chart("deploy/examples/chart", "deploy/examples/kubernetes.yaml", PLAIN_HEAD, "examples", examples_objects.check, PLAIN_VALUES)


def installed(readme):
    """What each `helm install` of the README's first block renders: lists of objects."""
    (block, *_) = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    echo = "set -eu; kubectl() { :; }; helm() { printf '%s\\n' \"$@\"; echo; }\n"
    told = subprocess.run(["bash", "-c", echo + block], capture_output=True, text=True, check=True, cwd=charts.ROOT)
    for arguments in filter(None, told.stdout.split("\n\n")):
        command, release, path, *rest = arguments.split("\n")
        if command != "install":
            raise Wrong(f"the README says helm {command}")
        rest = [word for word in rest if word != "--create-namespace"]
        rendered = charts.helm(["template", release, str(charts.ROOT / path), "--kube-version", charts.KUBERNETES, *rest])
        if rendered.returncode != 0:
            raise Wrong(f"helm install {release} fails: {rendered.stderr.strip()}")
        yield [document for document in yaml.safe_load_all(rendered.stdout) if document]


def cluster_of_the_readme_has_what_the_examples_want():
    cluster, examples = map(objects.Rendered, installed((CHART.path / "README.md").read_text()))
    secrets = {("Secret", name) for name in objects.secrets_made(cluster, {})}
    profiles = {("ConfigMap", document["metadata"]["name"]): document["data"] for document in cluster.of("ConfigMap")}
    wanted = {
        (kind, name)
        for _, spec in examples.pods.values()
        for volume in spec["volumes"]
        for kind, name, _ in objects.sources(volume)
    }
    missing = wanted - secrets - profiles.keys() - examples.named.keys()
    if missing:
        raise Wrong(f"nobody makes {sorted(missing)}")
    too_much = {name for _, name in secrets - wanted if "-client-" in name}
    if too_much:
        raise Wrong(f"nobody needs {sorted(too_much)}")
    profile = profiles["ConfigMap", "highwater-profile"]["profile.toml"]
    for line in ('ca = "/etc/highwater/tls/ca.crt"', 'cert = "/etc/highwater/tls/tls.crt"', 'key = "/etc/highwater/tls/tls.key"'):
        if line not in profile:
            raise Wrong(f"the cluster's profile has no {line}")
    namespaces = {document["metadata"]["namespace"] for rendered in (cluster, examples) for document in rendered.documents}
    if len(namespaces) != 1:
        raise Wrong(f"they are in {sorted(namespaces)}, and do not see each other's secrets")


def notes_name_what_is_there():
    """`helm template` does not print them, so what they name is looked up as it stands in the template."""
    notes = (CHART.path / "templates/NOTES.txt").read_text()
    rendered = objects.Rendered(CHART.documents({}))
    kinds = {"deploy": "Deployment", "service": "Service"}
    named = re.findall(r"(deploy|service)/\{\{ \$name \}\}([a-z-]+)(?: \d+:([a-z]+))?", notes)
    if len(named) < 5:
        raise Wrong(f"the notes name only {named}")
    for kind, name, port in named:
        found = rendered.named.get((kinds[kind], f"examples{name}"))
        if not found:
            raise Wrong(f"the notes name the {kinds[kind]} examples{name}, which is not there")
        if port and port not in [offered["name"] for offered in found["spec"]["ports"]]:
            raise Wrong(f"the notes forward to {port} of examples{name}, which has no such port")


def keys_that_are_made_are_good():
    """The gateway refuses keys that could be guessed; each install has a key of its own."""
    made = [objects.Rendered(CHART.documents({})).named["Secret", "examples-school-api-keys"]["data"]["api-keys"] for _ in range(2)]
    if made[0] == made[1] or len(base64.b64decode(made[0])) < 16:
        raise Wrong(f"the key of the school is {made[0]}")


COMPARISONS = [cluster_of_the_readme_has_what_the_examples_want, notes_name_what_is_there, keys_that_are_made_are_good]

if __name__ == "__main__":
    charts.main("the examples' Helm chart", CHART, "examples_cases.yaml", COMPARISONS)
