#!/bin/sh
# The same of the examples' image: made out of programs that are there, looked at, and each program run inside it by chroot.
#
# usage: tests/deploy/image-examples.sh DIRECTORY_OF_THE_PROGRAMS
set -eu
programs=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$root/tests/deploy/image-common.sh"
all="activity activity-cli calc school users users-cli"

is_made_alike "$root/deploy/examples/image" "$programs"
# shellcheck disable=SC2086 # Words.
has_files highwater-examples $all
has_layout highwater-examples
file=$root/deploy/examples/Dockerfile
[ "$(grep -c " $all" "$file")" -eq 2 ] || fail "the Dockerfile has other programs"
grep -q -F '"User": "10001:10001"' "$config" && grep -q '^USER 10001:10001$' "$file" || fail "it does not run as the user 10001"
# A program would be asked for its health by another one, and there is none that asks; probes come from outside.
! grep -q -F 'Healthcheck' "$config" && ! grep -q '^HEALTHCHECK' "$file" || fail "a health check that nothing in the image can do"
ports=$(grep -o '[0-9]*/tcp' "$config" | cut -d / -f 1 | tr '\n' ' ')
[ "$(sed -n 's/^EXPOSE //p' "$file") " = "$ports" ] || fail "the Dockerfile has other ports than $ports"

unpack_inside
for program in $all; do
    [ "$(inside "$program" --version)" = "$("$programs/$program" --version)" ] || fail "$program does not run inside"
    case $program in
    users*) ;;
    *) inside "$program" version | grep -q "^$program[: ]" || fail "$program does not tell its version inside" ;;
    esac
done
# The services begin: what they miss is the profile. Programs that only talk say whom they miss.
for service in 'users serve' 'users metrics' 'activity serve' 'calc backend' 'calc log'; do
    # shellcheck disable=SC2086 # A program and its subcommand.
    answer=$(export WEB_PORT=0 && inside $service --profile /nowhere.toml --port 0 --metrics-port 0 2>&1) && fail "$service runs without a profile: $answer"
    echo "$answer" | grep -q '/nowhere.toml' || fail "$service does not miss its profile: $answer"
done
printf '127.0.0.1 localhost\n' >"$work/inside/etc/hosts"
answer=$(inside users-cli --address localhost:1 list 2>&1) && fail "there is no server, and users-cli found one: $answer"
echo "$answer" | grep -q '^error: ' || fail "users-cli says nothing: $answer"
echo "ok: image of the examples: $(wc -c <"$work/one/rootfs.tar") bytes, and every program runs inside"
