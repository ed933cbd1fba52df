"""Whether the example applications take a command line and an environment, as the built programs see it.

A program is started for real, with a profile that does not exist, free ports, and files in a directory of the test: then all that may be
wrong is the profile. Variables that no setting is called by would be ignored in silence, so they are looked up in its help.
"""

import pathlib
import re
import subprocess
import tempfile

# Which client of the cluster each service is, tenant-name; the rules that `… init` makes are about these.
CLIENTS = {
    "users serve": "users-server",
    "users metrics": "users-metrics",
    "users email": "users-email",
    "activity serve": "activity-server",
    "calc backend": "calc-backend",
    "calc log": "calc-log",
    "calc connect": "calc-prompt",
    "school courses": "school-courses",
    "school students": "school-students",
    "school gateway": "school-gateway",
}
# What each of these keeps, by the variable that says where.
STAYS = {"users email": "OUTBOX", "calc log": "CALC_LOG", "school courses": "DATABASE", "school students": "DATABASE"}
# Where the image has a directory of its user's.
DATA = "/var/lib/highwater-examples"
# A profile that is not there.
NO_PROFILE = "/nowhere/profile.toml"
PORTS = ("PORT", "METRICS_PORT", "WEB_PORT")
# Files that services keep, which are made if they are not there.
KEPT = ("OUTBOX", "CALC_LOG", "DATABASE", "PROGRESS")
# What stands in the file of API keys, which a gateway reads first.
API_KEY = "a-key-for-this-test-only\n"
# A setting in the help of a program: its variable, and its default if it has one.
SETTING = re.compile(r"\[env: ([A-Z_]+)=?\](?:\s+\[default: ([^\]]*)\])?")


def run(directory, command, environment, timeout=30):
    program = pathlib.Path(directory) / command[0]
    command = [program, *command[1:]]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def settings(directory, command):
    """The variables of a program's subcommand, with their defaults."""
    told = run(directory, [*command[:2], "--help"], {})
    if told.returncode != 0:
        raise ValueError(told.stderr.strip())
    return {name: default for name, default in SETTING.findall(told.stdout)}


def in_force(directory, command, environment):
    """The value of each setting: the environment's, or the default."""
    return {**settings(directory, command), **environment}


def refused(directory, command, environment):
    """What is wrong with a command line and an environment."""
    words = " ".join(command)
    try:
        known = settings(directory, command)
    except (FileNotFoundError, ValueError) as why:
        return [f"{words}: {why}"]
    wrong = [f"{words}: {name} is no setting" for name in environment if name not in known and name != "PATH"]
    if "HIGHWATER_CONFIG" not in environment:
        return [*wrong, f"{words}: no profile is given"]
    for name in PORTS:
        if name in environment and not 0 < int(environment[name]) < 65536:
            wrong.append(f"{words}: {name} is no port")
    with tempfile.TemporaryDirectory() as kept:
        replaced = {"HIGHWATER_CONFIG": NO_PROFILE, **{name: "0" for name in PORTS if name in known}}
        replaced |= {name: f"{kept}/{name}" for name in KEPT if name in known}
        if "API_KEYS" in environment:
            replaced["API_KEYS"] = f"{kept}/api-keys"
            pathlib.Path(replaced["API_KEYS"]).write_text(API_KEY)
        ended = run(directory, command, {**environment, **replaced})
    if NO_PROFILE not in ended.stdout + ended.stderr:
        wrong.append(f"{words}: {(ended.stderr or ended.stdout).strip()}")
    return wrong
