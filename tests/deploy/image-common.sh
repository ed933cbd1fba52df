# What the tests of both images have in common. To be read by a shell that has set `root` and `work`.

fail() {
    echo "FAILED: image: $1" >&2
    exit 1
}

# Has a command make the image, which is given where to and how many MiB it may have: twice, in $work/one and $work/two, and a third time
# with a limit that is too small. How large it may be is said of the release's programs; these may not be optimised.
is_made_alike() {
    "$@" "$work/one" 400 >/dev/null
    (umask 077 && TZ=Pacific/Apia "$@" "$work/two" 400 >/dev/null)
    cmp "$work/one/SHA256SUMS" "$work/two/SHA256SUMS" || fail "the same programs make two images"
    if "$@" "$work/small" 1 >/dev/null 2>"$work/why"; then
        fail "an image that is too large is made"
    fi
    grep -q "at most 1048576 are allowed" "$work/why" || fail "it does not say how large an image may be"
}

# usage: has_files NAME PROGRAM...
has_files() {
    data=./var/lib/$1/
    shift
    listed=$(tar --list --verbose --numeric-owner --file "$work/one/rootfs.tar")
    for program in "$@"; do
        echo "$listed" | grep -q "^-rwxr-xr-x 0/0 .* ./usr/bin/$program\$" || fail "$program is not there: $listed"
    done
    [ "$(echo "$listed" | grep -c '^-.* ./usr/bin/')" -eq $# ] || fail "there are other programs: $listed"
    echo "$listed" | grep -q "^drwxr-xr-x 10001/10001 .* $data\$" || fail "the data directory is not the user's: $listed"
    [ "$(echo "$listed" | grep -c 10001/10001)" -eq 1 ] || fail "the user owns more than the data directory: $listed"
    ! echo "$listed" | grep -q '/sh$' || fail "there is a shell: $listed"
}

# Each blob has the digest that its name says, and what the index names is there. Gives the configuration as the file $config.
#
# usage: has_layout NAME
has_layout() {
    mkdir "$work/layout"
    tar --extract --directory "$work/layout" --file "$work/one/image.tar"
    for blob in "$work"/layout/blobs/sha256/*; do
        [ "$(sha256sum "$blob" | cut -d ' ' -f 1)" = "$(basename "$blob")" ] || fail "$blob is not what its name says"
    done
    named=$(grep -h -o 'sha256[:/][0-9a-f]\{64\}' "$work/layout/index.json" "$work/layout/manifest.json" "$work"/layout/blobs/sha256/* |
        cut -c 8- | sort -u)
    [ "$named" = "$(ls "$work/layout/blobs/sha256")" ] || fail "the image names $named"
    # containerd takes this name as it is, and others look for what it stands for.
    grep -q "\"io.containerd.image.name\": \"docker.io/library/$1:[0-9]" "$work/layout/index.json" || fail "containerd would not find the image"
    config=$work/layout/$(sed -n 's/.*"Config": "\([^"]*\)".*/\1/p' "$work/layout/manifest.json")
    grep -q '"org.opencontainers.image.version": "[0-9]' "$config" || fail "the image does not tell its version"
    grep -q '"org.opencontainers.image.revision": "[0-9a-fu]' "$config" || fail "the image does not tell its commit"
}

# Unpacks the image in $work/inside, with its owners.
unpack_inside() {
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
    mkdir "$work/inside"
    tar --extract --directory "$work/inside" --same-owner --numeric-owner --file "$work/one/rootfs.tar"
}

# As the image's user, in the image alone.
inside() {
    program=$1
    shift
    chroot --userspec=10001:10001 "$work/inside" "/usr/bin/$program" "$@"
}
