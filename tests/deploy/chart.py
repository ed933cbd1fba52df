"""The Helm chart, judged without a Kubernetes cluster.

Every case of cases.yaml is rendered. What must fail, must do so with its message; every object of what renders is checked against the
schemas of several versions of Kubernetes and against the other objects (names, ports, volumes, labels that must fit), and against what
Highwater asks of its pods. Kinds that are not Kubernetes' own (cert-manager's, Prometheus') have no schema here and are checked by hand.
Then come what is compared: the plain manifest with the default rendering, the README's table with values.yaml, that with the schema, and
the rules with promtool, which also plays through when each of them fires.

`tests/deploy/run` installs what this needs and runs it.
"""

import os
import re
import subprocess
import tempfile

import yaml

import charts
import objects
import values
from charts import ROOT, Wrong

GUIDE = ROOT / "docs/kubernetes.md"
# Where the rules stand for those without Helm; the chart's copy must be the same.
ALERTS_TEST = ROOT / "deploy/prometheus/alerts.test.yaml"
ALERTS_AT_HOME = ROOT / "deploy/prometheus/alerts.yaml"

PLAIN_HEAD = """\
# Highwater on Kubernetes without Helm: three nodes, with certificates from an authority of their own. This is the chart in
# deploy/helm/highwater as it renders by default, written by `tests/deploy/run --write`; docs/kubernetes.md tells how to use it:
#
#   kubectl create namespace highwater
#   kubectl apply -f deploy/kubernetes/highwater.yaml
"""
CHART = charts.Chart("deploy/helm/highwater", "deploy/kubernetes/highwater.yaml", PLAIN_HEAD, "highwater", objects.check)


def template_of(values_given):
    """The pods' template and the rest of the StatefulSet's description with these values."""
    documents = CHART.documents({"values": values_given})
    return next(document for document in documents if document["kind"] == "StatefulSet")["spec"]


def more_nodes_restart_nobody():
    """More replicas change neither who founded the cluster nor anything else about pods."""
    three, five = template_of({}), template_of({"replicas": 5})
    if three["template"] != five["template"] or three["volumeClaimTemplates"] != five["volumeClaimTemplates"]:
        raise Wrong("with more replicas, pods are others")


def other_settings_restart_nodes():
    """Settings that change in the ConfigMap alone would be read by some nodes and not by others."""
    one, other = template_of({"settings": {"log": "info"}}), template_of({"settings": {"log": "warn"}})
    if one["template"] == other["template"]:
        raise Wrong("with other settings, pods are the same")


def guide_sets_values_that_exist():
    known = {path for path, _, _ in values.described((CHART.path / "values.yaml").read_text())}
    named = re.findall(r"--set '?([A-Za-z.]+)=", GUIDE.read_text()) + re.findall(r"`([a-z][A-Za-z]+\.[A-Za-z]+)(?:=\w+)?`", GUIDE.read_text())
    files = re.compile(r".*\.(crt|key|pem)$|settings\.")
    unknown = sorted(name for name in named if name not in known and not files.match(name))
    if unknown or len(named) < 10:
        raise Wrong(f"{GUIDE.relative_to(ROOT)} sets what is no value: {unknown}")


def rules_are_sound():
    alerts = CHART.path / "files/alerts.yaml"
    if ALERTS_AT_HOME.read_text() != alerts.read_text():
        raise Wrong(f"{alerts.relative_to(ROOT)} and {ALERTS_AT_HOME.relative_to(ROOT)} differ")
    if not os.environ["PROMTOOL"]:
        return
    documents = CHART.documents({"values": {"prometheusRule": {"enabled": True}}})
    rule = next(document for document in documents if document["kind"] == "PrometheusRule")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(rule["spec"], file)
        file.flush()
        told = subprocess.run([os.environ["PROMTOOL"], "check", "rules", file.name], capture_output=True, text=True)
    if told.returncode != 0:
        raise Wrong(told.stdout + told.stderr)
    told = subprocess.run([os.environ["PROMTOOL"], "test", "rules", ALERTS_TEST], capture_output=True, text=True)
    if told.returncode != 0:
        raise Wrong(told.stdout + told.stderr)


COMPARISONS = [
    guide_sets_values_that_exist,
    more_nodes_restart_nobody,
    other_settings_restart_nodes,
    rules_are_sound,
]

if __name__ == "__main__":
    charts.main("the Helm chart", CHART, "cases.yaml", COMPARISONS)
