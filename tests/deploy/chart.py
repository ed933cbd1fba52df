"""The Helm chart, judged without a Kubernetes cluster.

Every case of cases.yaml is rendered. What must fail, must do so with its message; every object of what renders is checked against the
schemas of several versions of Kubernetes and against the other objects (names, ports, volumes, labels that must fit), and against what
Highwater asks of its pods. Kinds that are not Kubernetes' own (cert-manager's, Prometheus') have no schema here and are checked by hand.
Then come what is compared: the plain manifest with the default rendering, the README's table with values.yaml, that with the schema, and
the rules with promtool, which also plays through when each of them fires.

`tests/deploy/run` installs what this needs and runs it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

import objects
import values

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/highwater"
PLAIN = ROOT / "deploy/kubernetes/highwater.yaml"
ALERTS = CHART / "files/alerts.yaml"
# Where the rules stand for those without Helm; the chart's copy must be the same.
ALERTS_TEST = ROOT / "deploy/prometheus/alerts.test.yaml"
ALERTS_AT_HOME = ROOT / "deploy/prometheus/alerts.yaml"
GUIDE = ROOT / "docs/kubernetes.md"
KUBERNETES = "1.35.0"

PLAIN_HEAD = """\
# Highwater on Kubernetes without Helm: three nodes, with certificates from an authority of their own. This is the chart in
# deploy/helm/highwater as it renders by default, written by `tests/deploy/run --write`; docs/kubernetes.md tells how to use it:
#
#   kubectl create namespace highwater
#   kubectl apply -f deploy/kubernetes/highwater.yaml
"""


class Wrong(Exception):
    """What a check found."""


def helm(arguments):
    return subprocess.run([os.environ["HELM"], *arguments], capture_output=True, text=True, timeout=60)


def render(case, extra=()):
    """What `helm template` says about a case."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(case.get("values") or {}, file)
        file.flush()
        command = ["template", case.get("release", "highwater"), str(CHART), "--values", file.name]
        command += ["--namespace", case.get("namespace", "highwater"), "--kube-version", case.get("kubernetes", KUBERNETES)]
        command += ["--is-upgrade"] if case.get("upgrade") else []
        return helm([*command, *extra])


def must_render(case, extra=()):
    rendered = render(case, extra)
    if rendered.returncode != 0:
        raise Wrong(f"it does not render: {rendered.stderr.strip()}")
    return rendered.stdout


def judge(case):
    if "fails" in case:
        rendered = render(case)
        if rendered.returncode == 0:
            raise Wrong("it renders")
        if case["fails"] not in rendered.stderr:
            raise Wrong(f"the message is another one: {rendered.stderr.strip()}")
        return
    documents = [document for document in yaml.safe_load_all(must_render(case)) if document]
    wrong = objects.check(documents, case.get("values") or {})
    if wrong:
        raise Wrong("\n    ".join(wrong))


def template_of(values_given):
    """The pods' template and the rest of the StatefulSet's description with these values."""
    documents = yaml.safe_load_all(must_render({"values": values_given}))
    return next(document for document in documents if document and document["kind"] == "StatefulSet")["spec"]


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


def plain_rendering():
    text = must_render({}, ["--skip-tests"])
    # Neither of them means anything without Helm.
    lines = (line for line in text.splitlines() if not re.match(r"# Source: |    helm\.sh/hook", line))
    kept = "\n".join(lines).replace("\n  annotations:\n---", "\n---").replace("\n  annotations:\nspec:", "\nspec:")
    kept = re.sub(r"\n  annotations:\n(?=\S)", "\n", kept)
    return PLAIN_HEAD + kept + "\n"


def plain_manifest_is_the_default_rendering():
    if not PLAIN.exists() or PLAIN.read_text() != plain_rendering():
        raise Wrong(f"{PLAIN.relative_to(ROOT)} is not what the chart renders: `tests/deploy/run --write`")
    wrong = objects.check([document for document in yaml.safe_load_all(PLAIN.read_text()) if document], {})
    if wrong:
        raise Wrong("\n    ".join(wrong))


def readme_has_the_values():
    if values.with_table(CHART) != (CHART / "README.md").read_text():
        raise Wrong("the table of values in the chart's README is not that of values.yaml: `tests/deploy/run --write`")


def guide_sets_values_that_exist():
    known = {path for path, _, _ in values.described((CHART / "values.yaml").read_text())}
    named = re.findall(r"--set '?([A-Za-z.]+)=", GUIDE.read_text()) + re.findall(r"`([a-z][A-Za-z]+\.[A-Za-z]+)(?:=\w+)?`", GUIDE.read_text())
    files = re.compile(r".*\.(crt|key|pem)$|settings\.")
    unknown = sorted(name for name in named if name not in known and not files.match(name))
    if unknown or len(named) < 10:
        raise Wrong(f"{GUIDE.relative_to(ROOT)} sets what is no value: {unknown}")


def schema_knows_the_values():
    wrong = values.unlike_schema(CHART)
    if wrong:
        raise Wrong("\n    ".join(wrong))


def chart_is_in_order():
    linted = helm(["lint", "--strict", str(CHART)])
    if linted.returncode != 0:
        raise Wrong(linted.stdout + linted.stderr)


def chart_has_the_version_of_the_program():
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    told = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    if told != version:
        raise Wrong(f"Chart.yaml has appVersion {told}, the program is {version}")


def rules_are_sound():
    if ALERTS_AT_HOME.read_text() != ALERTS.read_text():
        raise Wrong(f"{ALERTS.relative_to(ROOT)} and {ALERTS_AT_HOME.relative_to(ROOT)} differ")
    if not os.environ["PROMTOOL"]:
        return
    rendered = must_render({"values": {"prometheusRule": {"enabled": True}}})
    rule = next(d for d in yaml.safe_load_all(rendered) if d and d["kind"] == "PrometheusRule")
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
    chart_is_in_order,
    chart_has_the_version_of_the_program,
    schema_knows_the_values,
    readme_has_the_values,
    guide_sets_values_that_exist,
    plain_manifest_is_the_default_rendering,
    more_nodes_restart_nobody,
    other_settings_restart_nodes,
    rules_are_sound,
]


def write():
    PLAIN.parent.mkdir(parents=True, exist_ok=True)
    PLAIN.write_text(plain_rendering())
    (CHART / "README.md").write_text(values.with_table(CHART))


def main():
    if sys.argv[1:] == ["--write"]:
        return write()
    cases = yaml.safe_load((ROOT / "tests/deploy/cases.yaml").read_text())
    todo = [(case["name"], lambda case=case: judge(case)) for case in cases]
    todo += [(comparison.__name__.replace("_", " "), comparison) for comparison in COMPARISONS]
    failed = 0
    for name, check in todo:
        try:
            check()
        except Wrong as why:
            failed += 1
            print(f"FAILED  {name}\n    {why}", file=sys.stderr)
    if failed:
        sys.exit(f"{failed} of {len(todo)} checks of the Helm chart failed")
    print(f"the Helm chart: {len(todo)} checks passed, {objects.CHECKED} objects against {len(objects.VERSIONS)} versions of Kubernetes")


main()
