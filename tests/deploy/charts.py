"""What the checks of both Helm charts have in common: rendering, judging cases, and comparing what must be equal.

A case of cases.yaml has a name, perhaps values, a release, a namespace and a version of Kubernetes. What must fail, must do so with its
message; what renders is given to the chart's own check of objects.
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
KUBERNETES = "1.35.0"


class Wrong(Exception):
    """What a check found."""


def helm(arguments):
    return subprocess.run([os.environ["HELM"], *arguments], capture_output=True, text=True, timeout=60)


def must_hold(wrong):
    if wrong:
        raise Wrong("\n    ".join(wrong))


class Chart:
    """A chart, its plain rendering (which begins with `head` and is of the values `plain_values`), and `check(documents, values)`, which
    gives everything that is wrong with rendered objects."""

    def __init__(self, path, plain, head, release, check, plain_values=None):
        self.path, self.plain, self.head = ROOT / path, ROOT / plain, head
        self.release, self.check, self.plain_values = release, check, plain_values or {}

    def render(self, case, extra=()):
        """What `helm template` says about a case."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(case.get("values") or {}, file)
            file.flush()
            command = ["template", case.get("release", self.release), str(self.path), "--values", file.name]
            command += ["--namespace", case.get("namespace", "highwater"), "--kube-version", case.get("kubernetes", KUBERNETES)]
            command += ["--is-upgrade"] if case.get("upgrade") else []
            return helm([*command, *extra])

    def must_render(self, case, extra=()):
        rendered = self.render(case, extra)
        if rendered.returncode != 0:
            raise Wrong(f"it does not render: {rendered.stderr.strip()}")
        return rendered.stdout

    def documents(self, case, extra=()):
        return [document for document in yaml.safe_load_all(self.must_render(case, extra)) if document]

    def judge(self, case):
        if "fails" in case:
            rendered = self.render(case)
            if rendered.returncode == 0:
                raise Wrong("it renders")
            if case["fails"] not in rendered.stderr:
                raise Wrong(f"the message is another one: {rendered.stderr.strip()}")
            return
        must_hold(self.check(self.documents(case), case.get("values") or {}))

    def plain_rendering(self):
        text = self.must_render({"values": self.plain_values}, ["--skip-tests"])
        # Neither of them means anything without Helm.
        lines = (line for line in text.splitlines() if not re.match(r"# Source: |    helm\.sh/hook", line))
        kept = "\n".join(lines).replace("\n  annotations:\n---", "\n---").replace("\n  annotations:\nspec:", "\nspec:")
        kept = re.sub(r"\n  annotations:\n(?=\S)", "\n", kept)
        return self.head + kept + "\n"

    def plain_manifest_is_the_default_rendering(self):
        if not self.plain.exists() or self.plain.read_text() != self.plain_rendering():
            raise Wrong(f"{self.plain.relative_to(ROOT)} is not what the chart renders: `tests/deploy/run --write`")
        must_hold(self.check([document for document in yaml.safe_load_all(self.plain.read_text()) if document], self.plain_values))

    def readme_has_the_values(self):
        if values.with_table(self.path) != (self.path / "README.md").read_text():
            raise Wrong("the table of values in the chart's README is not that of values.yaml: `tests/deploy/run --write`")

    def schema_knows_the_values(self):
        must_hold(values.unlike_schema(self.path))

    def is_in_order(self):
        linted = helm(["lint", "--strict", str(self.path)])
        if linted.returncode != 0:
            raise Wrong(linted.stdout + linted.stderr)

    def has_the_version_of_the_program(self):
        version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        told = yaml.safe_load((self.path / "Chart.yaml").read_text())["appVersion"]
        if told != version:
            raise Wrong(f"Chart.yaml has appVersion {told}, the program is {version}")

    def comparisons(self):
        return [
            self.is_in_order,
            self.has_the_version_of_the_program,
            self.schema_knows_the_values,
            self.readme_has_the_values,
            self.plain_manifest_is_the_default_rendering,
        ]

    def write(self):
        self.plain.parent.mkdir(parents=True, exist_ok=True)
        self.plain.write_text(self.plain_rendering())
        (self.path / "README.md").write_text(values.with_table(self.path))


def main(title, chart, cases, comparisons):
    """Judges the cases of a file, and compares; or writes what is written."""
    if sys.argv[1:] == ["--write"]:
        return chart.write()
    todo = [(case["name"], lambda case=case: chart.judge(case)) for case in yaml.safe_load((ROOT / "tests/deploy" / cases).read_text())]
    todo += [(comparison.__name__.replace("_", " "), comparison) for comparison in [*chart.comparisons(), *comparisons]]
    failed = 0
    for name, check in todo:
        try:
            check()
        except Wrong as why:
            failed += 1
            print(f"FAILED  {name}\n    {why}", file=sys.stderr)
    if failed:
        sys.exit(f"{failed} of {len(todo)} checks of {title} failed")
    print(f"{title}: {len(todo)} checks passed, {objects.CHECKED} objects against {len(objects.VERSIONS)} versions of Kubernetes")
