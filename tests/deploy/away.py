"""What the alerts make of a node that is away: nodes' own metrics from before, meanwhile and after, played to Prometheus' rules.

The test of the console (tests/console) freezes node n3 of three and keeps what every node told Prometheus at each of these times. Here
that is stretched to minutes, as a Prometheus that scrapes every 30 s would have seen it, and promtool says which alerts fire.

usage: away.py FILE
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
# How many scrapes each time lasts: five minutes, five minutes, fifteen minutes.
LASTS = {"before": 10, "away": 10, "back": 30}
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")


def series(told):
    """Every series of every node, and `up`, as promtool wants them: name with labels, and values."""
    times = list(LASTS)
    nodes = [f"n{number + 1}" for number in range(len(told["before"]))]
    values = {}
    for time in times:
        for node, text in zip(nodes, told[time]):
            labels = f'job="highwater", instance="{node}"'
            values.setdefault(f"up{{{labels}}}", {})[time] = "1" if text else "0"
            for line in text.splitlines():
                sample = SAMPLE.match(line)
                if sample:
                    name, own, value = sample.groups()
                    values.setdefault(f"{name}{{{own + ', ' if own else ''}{labels}}}", {})[time] = value
    lasting = lambda value, times: f"_x{times}" if value is None else f"{value}x{times}"
    shown = lambda at: " ".join(lasting(at.get(time), LASTS[time] - 1) for time in times)
    return [{"series": name, "values": shown(at)} for name, at in values.items()]


def main():
    told = json.loads(Path(sys.argv[1]).read_text())
    if told["away"][2] or not all(told["before"]) or not all(told["back"]):
        sys.exit("n3 ought to have been away, and only then, and only it")
    rules = {rule["alert"]: rule for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]}
    filled = lambda text: text.replace("{{ $labels.instance }}", "n3")
    down = {
        "exp_labels": {"severity": "critical", "job": "highwater", "instance": "n3"},
        "exp_annotations": {key: filled(text) for key, text in rules["HighwaterNodeDown"]["annotations"].items()},
    }
    # Whether the machine's disk is full or its clock is odd is none of this test's business.
    about_nodes = ["HighwaterNodeDown", "HighwaterNodeNotReady", "HighwaterPartitionWithoutLeader", "HighwaterPartitionsNotLed", "HighwaterCatalogLost", "HighwaterReplicaStopped", "HighwaterReplicaDead"]
    quiet = lambda time: [{"eval_time": time, "alertname": alert, "exp_alerts": []} for alert in about_nodes]
    while_away = [{"eval_time": "9m", "alertname": "HighwaterNodeDown", "exp_alerts": [down]}]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": series(told), "alert_rule_test": quiet("4m") + while_away + quiet("20m")}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(test, file)
        file.flush()
        judged = subprocess.run([os.environ["PROMTOOL"], "test", "rules", file.name], capture_output=True, text=True)
    if judged.returncode != 0:
        sys.exit(f"a node that is away is not told as it should be:\n{judged.stdout}{judged.stderr}")
    print(f"alerts: a node that is away is told, and that it is back ({len(test['tests'][0]['input_series'])} series of {len(told['before'])} nodes)")


main()
