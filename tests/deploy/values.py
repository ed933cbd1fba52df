"""values.yaml beside the chart's README and its schema."""

import json
import re

import yaml

BEGIN = "<!-- values: written by `tests/deploy/run --write` -->"
END = "<!-- end of values -->"


def described(text):
    """(path, default, comment) of every value, and of every section that has a comment, in the file's order."""
    path, comment, rows = [], [], []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
            continue
        found = re.match(r"( *)([A-Za-z]+):(.*)$", line)
        if not found:
            comment = []
            continue
        indent, name, default = len(found.group(1)) // 2, found.group(2), found.group(3).strip()
        path = [*path[:indent], name]
        if default or comment:
            rows.append((".".join(path), default, " ".join(comment)))
        comment = []
    return rows


def escaped(comment):
    """As Markdown: neither the end of a cell nor the beginning of HTML."""
    return re.sub(r"([|<])", r"\\\1", comment)


def table(chart):
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for path, default, comment in described((chart / "values.yaml").read_text()):
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{path}` | {shown} | {escaped(comment)} |")
    return "\n".join(lines)


def with_table(chart):
    """The README as it should be."""
    before, rest = (chart / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(chart)}\n{END}{after}"


def unlike_schema(chart):
    """Where values.yaml and values.schema.json do not have the same names, or the schema is not strict."""
    schema = json.loads((chart / "values.schema.json").read_text())
    default = yaml.safe_load((chart / "values.yaml").read_text())
    return list(compare("", schema, {"global": {}, **default}))


def compare(path, schema, default):
    if "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        yield f"the schema of {path or 'everything'} lets anything in"
    for name in sorted(schema["properties"].keys() ^ default.keys()):
        # Maps that are free-form have only some of what they may have.
        yield f"{path}{name} stands in only one of values.yaml and its schema"
    for name in schema["properties"].keys() & default.keys():
        if isinstance(default[name], dict):
            yield from compare(f"{path}{name}.", schema["properties"][name], default[name])
