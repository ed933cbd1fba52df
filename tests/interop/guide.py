"""The client of docs/python.md, as it stands there: produce, keys, compression, consume, and a group whose members are killed and share.

usage: guide.py HIGHWATER_BINARY   (PYTHONPATH holds the generated stubs; see `run` beside this file)
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

from interop import CALL_DEADLINE_S, Node, credentials_of, dev_cluster, serving, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOPIC = "guide"
RECORDS = 120
COMPRESSED = 100
PARTITIONS = 2
# What Kafka's own clients make of these keys, for 2 partitions and for 12.
KEYS = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}


def write_client(directory):
    """The code blocks of the page, as one file."""
    page = (ROOT / "docs" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = directory / "client.py"
    path.write_text("\n\n".join(blocks))
    return path


def environment(directory, profile):
    files = {name.upper(): str(directory / profile[name]) for name in ("ca", "cert", "key")}
    return {**os.environ, **files, "NODES": ",".join(profile["addresses"])}


def check_keys(client):
    sys.path.insert(0, str(client.parent))
    from client import partition_of

    for key, hashed in KEYS.items():
        for count in (2, 12):
            assert partition_of(key, count) == (hashed & 0x7FFFFFFF) % count, key


def lines_of(client, env, arguments, enough):
    """Runs a worker until it has printed as many lines, and kills it."""
    worker = subprocess.Popen([sys.executable, client, *arguments], env=env, stdout=subprocess.PIPE, text=True)
    lines = []
    try:
        while len(lines) < enough:
            line = worker.stdout.readline()
            assert line, f"the worker ended with {worker.wait(CALL_DEADLINE_S)} after {len(lines)} lines"
            lines.append(line.strip())
    finally:
        worker.send_signal(signal.SIGKILL)
    # What it has printed beyond that counts as well: it may have been committed.
    lines += worker.stdout.read().splitlines()
    worker.wait(CALL_DEADLINE_S)
    return lines


def check_guide(binary, directory, profile, scratch):
    client = write_client(scratch)
    check_keys(client)
    env = environment(directory, profile)
    node = Node(profile["addresses"][0], credentials_of(directory, profile))
    wait_for(lambda: serving(node), "three nodes")
    run = lambda *command: subprocess.run(command, env=env, check=True, timeout=120, capture_output=True, text=True).stdout
    profile_path = str(directory / "profile.toml")
    run(binary, "topic", "create", TOPIC, "--partitions", str(PARTITIONS), "--profile", profile_path)
    run(sys.executable, client, "produce", TOPIC, str(RECORDS))

    consume = [binary, "consume", TOPIC, "--from", "beginning", "--exit-at-end", "--profile", profile_path]
    printed = run(*consume).splitlines()
    expected = [f"value {number}" for number in range(RECORDS)] + [f"compressed {number}" for number in range(COMPRESSED)]
    assert sorted(printed) == sorted(expected), printed[:5]
    say("what Python has produced, keyed and compressed, is read by the command line")

    total = RECORDS + COMPRESSED
    first = lines_of(client, env, ["work", TOPIC, "workers", "first"], total // 2)
    committed = sum(partition["offset"] or 0 for partition in described(binary, profile_path, env)["partitions"])
    second = lines_of(client, env, ["work", TOPIC, "workers", "second"], total - committed)
    places = [tuple(int(number) for number in line.split()[:2]) for line in first + second]
    assert len(set(places)) == total, "a record was skipped"
    twice = len(places) - total
    assert twice <= 10 * PARTITIONS, f"{twice} came twice, and every tenth of a partition was committed"
    say(f"a group went on behind a killed member: {total} records, {twice} of them twice")
    check_sharing(client, env, binary, profile_path)


def check_sharing(client, env, binary, profile_path):
    """A member in Python and one of the command line have a partition each."""
    python = subprocess.Popen([sys.executable, client, "work", TOPIC, "workers", "python"], env=env, stdout=subprocess.DEVNULL)
    consume = [binary, "consume", TOPIC, "--group", "workers", "--member", "rust", "--profile", profile_path]
    other = subprocess.Popen(consume, stdout=subprocess.DEVNULL)
    try:
        holding = lambda: {it["member"]: len(it["holding"]) for it in described(binary, profile_path, env)["members"]}
        wait_for(lambda: holding() == {"python": 1, "rust": 1}, "a partition each")
    finally:
        for process in (python, other):
            process.kill()
            process.wait(CALL_DEADLINE_S)
    say("a member in Python and one in Rust share a topic")


def described(binary, profile_path, env):
    command = [binary, "group", "describe", TOPIC, "workers", "--output", "json", "--profile", profile_path]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def say(text):
    print(f"guide: {text}", flush=True)


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="highwater-guide-") as scratch:
        scratch = pathlib.Path(scratch)
        with dev_cluster(binary, scratch / "cluster") as (directory, profile):
            check_guide(binary, directory, profile, scratch)
    say("passed")


if __name__ == "__main__":
    main()
