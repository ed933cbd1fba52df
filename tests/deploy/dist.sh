#!/bin/sh
# Makes a release out of binaries that are there, twice, and looks at what is in it.
#
# usage: tests/deploy/dist.sh HIGHWATER_BINARY SBOM_BINARY
set -eu
binary=$1
sbom=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: dist: $1" >&2
    exit 1
}

# Another umask and zone must not be seen in it.
"$root/deploy/dist" "$binary" "$sbom" "$work/one" >/dev/null
(umask 077 && TZ=Pacific/Apia "$root/deploy/dist" "$binary" "$sbom" "$work/two" >/dev/null)
cmp "$work/one/SHA256SUMS" "$work/two/SHA256SUMS" || fail "the same binary makes two releases"
(cd "$work/one" && sha256sum --check --quiet SHA256SUMS) || fail "the checksums are wrong"
[ "$(wc -l <"$work/one/SHA256SUMS")" -eq 3 ] || fail "not each file has a checksum"

version=$("$binary" version | cut -d ' ' -f 2)
name=highwater-$version-$(uname -m)-linux
listed=$(tar --list --file "$work/one/$name.tar.gz")
expected="$name/
$name/CHANGELOG.md
$name/LICENSE
$name/README.md
$name/completions/
$name/completions/_highwater
$name/completions/highwater.bash
$name/completions/highwater.fish
$name/highwater
$name/highwater.cdx.json"
[ "$listed" = "$expected" ] || fail "it holds $listed"

tar --extract --directory "$work" --file "$work/one/$name.tar.gz"
released=$work/$name/highwater
[ "$("$released" version)" = "$("$binary" version)" ] || fail "the released binary is another one"
[ -z "$(nm "$released" 2>/dev/null)" ] || fail "the binary is not stripped"
bash -n "$work/$name/completions/highwater.bash" || fail "bash cannot read its completions"
grep -q -- "-l print-config" "$work/$name/completions/highwater.fish" || fail "fish is told of no flags"

# What is linked must be in the bill, with a checksum; what only tests need must not.
bill=$work/$name/highwater.cdx.json
for wanted in '"bomFormat": "CycloneDX"' '"name": "openraft"' '"name": "rustls"' '"purl": "pkg:cargo/highwater-node@' \
    '"alg": "SHA-256"' '"scope": "excluded"' '"name": "highwater"'; do
    grep -q -F "$wanted" "$bill" || fail "the bill of materials has no $wanted"
done
for unwanted in '"name": "proptest"' '"name": "highwater-tests"' '"name": "windows-sys"'; do
    ! grep -q -F "$unwanted" "$bill" || fail "the bill of materials has $unwanted"
done
echo "ok: dist: $name, $(grep -c '"bom-ref"' "$bill") packages"
