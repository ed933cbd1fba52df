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

fail() {
    echo "FAILED: image: $1" >&2
    exit 1
}

cp "$binary" "$work/highwater"
strip "$work/highwater"
# How large it may be is said of the release's binary; this one may not be optimised.
"$root/deploy/image" "$work/highwater" "$work/one" 400 >/dev/null
(umask 077 && TZ=Pacific/Apia "$root/deploy/image" "$work/highwater" "$work/two" 400 >/dev/null)
cmp "$work/one/SHA256SUMS" "$work/two/SHA256SUMS" || fail "the same binary makes two images"
if "$root/deploy/image" "$work/highwater" "$work/small" 1 >/dev/null 2>"$work/why"; then
    fail "an image that is too large is made"
fi
grep -q "at most 1048576 are allowed" "$work/why" || fail "it does not say how large an image may be"

listed=$(tar --list --verbose --numeric-owner --file "$work/one/rootfs.tar")
echo "$listed" | grep -q '^-rwxr-xr-x 0/0 .* ./usr/bin/highwater$' || fail "the binary is not there: $listed"
echo "$listed" | grep -q '^drwxr-xr-x 10001/10001 .* ./var/lib/highwater/$' || fail "the data directory is not the user's: $listed"
[ "$(echo "$listed" | grep -c 10001/10001)" -eq 1 ] || fail "the user owns more than the data directory: $listed"
! echo "$listed" | grep -q '/sh$' || fail "there is a shell: $listed"

# Each blob has the digest that its name says, and what the index names is there.
mkdir "$work/layout"
tar --extract --directory "$work/layout" --file "$work/one/image.tar"
for blob in "$work"/layout/blobs/sha256/*; do
    [ "$(sha256sum "$blob" | cut -d ' ' -f 1)" = "$(basename "$blob")" ] || fail "$blob is not what its name says"
done
named=$(grep -h -o 'sha256[:/][0-9a-f]\{64\}' "$work/layout/index.json" "$work/layout/manifest.json" "$work"/layout/blobs/sha256/* |
    cut -c 8- | sort -u)
[ "$named" = "$(ls "$work/layout/blobs/sha256")" ] || fail "the image names $named"
# containerd takes this name as it is, and others look for what it stands for.
grep -q '"io.containerd.image.name": "docker.io/library/highwater:[0-9]' "$work/layout/index.json" || fail "containerd would not find the image"
config=$(sed -n 's/.*"Config": "\([^"]*\)".*/\1/p' "$work/layout/manifest.json")
for wanted in '"User": "10001:10001"' '"health", "--address", "localhost:7400"' '"/usr/bin/highwater"'; do
    grep -q -F "$wanted" "$work/layout/$config" || fail "the image's configuration has no $wanted"
    # The same stands in the Dockerfile.
    grep -q "$(echo "$wanted" | sed 's/"User": "\(.*\)"/USER \1/')" "$root/deploy/Dockerfile" || fail "the Dockerfile has no $wanted"
done

if [ "$(id -u)" -ne 0 ]; then
    {
        echo
        echo "######################################################################"
        echo "##  SKIPPED: only root can chroot, so nothing ran inside the image."
        echo "######################################################################"
        echo
    } >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi

# As the image's user, in the image alone.
mkdir "$work/inside"
tar --extract --directory "$work/inside" --same-owner --numeric-owner --file "$work/one/rootfs.tar"
highwater() {
    chroot --userspec=10001:10001 "$work/inside" /usr/bin/highwater "$@"
}
[ "$(highwater version)" = "$("$binary" version)" ] || fail "it does not run inside"
highwater certs ca --cluster image --out /var/lib/highwater/certs >/dev/null 2>&1
highwater certs client default anna --ca-dir /var/lib/highwater/certs --out /var/lib/highwater/certs >/dev/null 2>&1
printf '127.0.0.1 localhost\n127.0.0.1 node.of.this.test\n' >"$work/inside/etc/hosts"

# Nobody listens there: a name that is known is refused, one that is not cannot be found.
ask() {
    highwater health --address "$1" --timeout 5s --ca /var/lib/highwater/certs/ca.pem \
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
