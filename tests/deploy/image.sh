#!/bin/sh
# Makes the image's root file system out of a binary that is there, looks at it, and runs the command inside it by chroot: names are looked up
# in its own /etc/hosts. Without root, and with CI=true that is a failure, chroot is skipped, loudly.
#
# usage: tests/deploy/image.sh HIGHWATER_BINARY
set -eu
binary=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$root/tests/deploy/image-common.sh"

cp "$binary" "$work/highwater"
strip "$work/highwater"
is_made_alike "$root/deploy/image" "$work/highwater"
has_files highwater highwater
has_layout highwater
for wanted in '"User": "10001:10001"' '"health", "--address", "localhost:7400"' '"/usr/bin/highwater"'; do
    grep -q -F "$wanted" "$config" || fail "the image's configuration has no $wanted"
    # The same stands in the Dockerfile.
    grep -q "$(echo "$wanted" | sed 's/"User": "\(.*\)"/USER \1/')" "$root/deploy/Dockerfile" || fail "the Dockerfile has no $wanted"
done

unpack_inside
[ "$(inside highwater version)" = "$("$binary" version)" ] || fail "it does not run inside"
inside highwater certs ca --cluster image --out /var/lib/highwater/certs >/dev/null 2>&1
inside highwater certs client default anna --ca-dir /var/lib/highwater/certs --out /var/lib/highwater/certs >/dev/null 2>&1
printf '127.0.0.1 localhost\n127.0.0.1 node.of.this.test\n' >"$work/inside/etc/hosts"

# Nobody listens there: a name that is known is refused, one that is not cannot be found.
ask() {
    inside highwater health --address "$1" --timeout 5s --ca /var/lib/highwater/certs/ca.pem \
        --cert /var/lib/highwater/certs/client-default-anna.pem --key /var/lib/highwater/certs/client-default-anna.key 2>&1 || true
}
for name in localhost node.of.this.test; do
    answer=$(ask "$name:1")
    echo "$answer" | grep -q -i 'refused' || fail "$name is not looked up: $answer"
done
answer=$(ask nobody.of.this.test:1)
! echo "$answer" | grep -q -i 'connection refused' || fail "a name that nobody has was found: $answer"
echo "$answer" | grep -q -i 'lookup\|resol\|name' || fail "it does not say that a name cannot be found: $answer"
echo "ok: image: $(wc -c <"$work/one/rootfs.tar") bytes, runs inside, and looks names up"
