#!/bin/sh
# What deploy/compose says, and deploy/examples on top of it, tried as far as that is possible without containers: see compose.py,
# compose_examples.py and compose_live.py, which need the Python packages of compose.requirements.txt. They are installed into target/;
# without Python or a package index the test is skipped, loudly; with CI=true that is a failure.
#
# usage: tests/deploy/compose.sh HIGHWATER_BINARY (beside which the examples' programs are)
set -eu
binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/compose-python
log=$venv.log

skip() {
    {
        echo
        echo "######################################################################"
        echo "##  SKIPPED: deploy/compose was not looked at."
        echo "##  $1"
        [ ! -s "$log" ] || tail -n 5 "$log" | sed 's/^/##    /'
        echo "######################################################################"
        echo
    } >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}

mkdir -p "$root/target"
: >"$log"
command -v python3 >/dev/null || skip "There is no python3."
if ! cmp -s "$here/compose.requirements.txt" "$venv/installed.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv" >>"$log" 2>&1 || skip "python3 cannot make a virtual environment:"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 --timeout 20 \
        -r "$here/compose.requirements.txt" >>"$log" 2>&1 || skip "pip cannot install what it needs:"
    cp "$here/compose.requirements.txt" "$venv/installed.txt"
fi
export PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" "$here/compose.py" "$binary"
"$venv/bin/python" "$here/compose_examples.py" "$(dirname "$binary")"
"$venv/bin/python" "$here/compose_live.py" "$(dirname "$binary")"

# Where docker has its plugin, it reads the files, too; no engine is needed for that.
if docker compose version >/dev/null 2>&1; then
    docker compose --file "$root/deploy/compose/compose.yaml" config --quiet
    docker compose --file "$root/deploy/compose/compose.yaml" --file "$root/deploy/examples/compose.yaml" config --quiet
fi
