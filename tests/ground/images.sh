#!/usr/bin/env bash
# The images of the platform, one a binary, without a container engine: from scratch, one static binary,
# CA certificates, nobody's user.
#   images.sh build [BINARY...]  compiles, then writes FOLDER/BINARY.tar, REGISTRY/BINARY:VERSION inside; prints the paths
#   images.sh pack [BINARY...]   the same from what was compiled last
# The archives are OCI layouts, which `docker load` reads too; the same binary makes the same bytes.
# Settings: IMAGES (FOLDER; target/images), IMAGE_REGISTRY (messaging.dev), IMAGE_VERSION (the workspace's),
# IMAGE_PROFILE (release; dev compiles faster and makes larger images).

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=images
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/oci.sh"

ROOT=${HERE%/tests/ground}
BINARIES=(gateway ingest fanout chatmgmt operator)
TARGET=$(uname -m)-unknown-linux-gnu
: "${IMAGES:=$ROOT/target/images}"
: "${IMAGE_REGISTRY:=messaging.dev}"
: "${IMAGE_VERSION:=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")}"
: "${IMAGE_PROFILE:=release}"
# A folder of its own: other flags than everybody else's.
: "${IMAGE_TARGET_DIR:=$GROUND_CACHE/target-images}"

compile() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} binary arguments=()
    for binary; do arguments+=(-p "$binary" --bin "$binary"); done
    # Static glibc: names are resolved inside libc since 2.34, so it needs no library at run time.
    # Paths of this machine stay out of the binaries.
    (cd "$ROOT" && CARGO_TARGET_DIR=$IMAGE_TARGET_DIR CARGO_INCREMENTAL=0 \
        CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$IMAGE_TARGET_DIR=/target" \
        RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$ROOT=/source" \
        cargo build --locked --profile "$IMAGE_PROFILE" --target "$TARGET" "${arguments[@]}") >&2
}

certificates() {
    local file
    for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [[ ! -f $file ]] || {
            echo "$file"
            return
        }
    done
    die 'no CA certificates: install ca-certificates'
}

pack() {
    local binary folder=$IMAGE_TARGET_DIR/$TARGET/${IMAGE_PROFILE/#dev/debug} work
    mkdir -p "$IMAGES"
    work=$(mktemp -d "$IMAGES/.work.XXXXXX")
    # shellcheck disable=SC2064 # as it is now
    trap "rm -rf '$work'" EXIT
    echo 'hosts: files dns' >"$work/nsswitch.conf"
    for binary; do
        [[ -f $folder/$binary ]] || die "$binary is not compiled: $SELF build $binary"
        cp "$folder/$binary" "$work/$binary"
        [[ $IMAGE_PROFILE == release ]] || strip "$work/$binary"
        is_static "$work/$binary" || die "$binary is not static"
        TMPDIR=$work scratch_image "$IMAGE_REGISTRY/$binary:$IMAGE_VERSION" "$work/$binary" \
            "$(certificates)=etc/ssl/certs/ca-certificates.crt" "$work/nsswitch.conf=etc/nsswitch.conf" >"$work/tar"
        mv "$work/tar" "$IMAGES/$binary.tar"
        echo "$IMAGES/$binary.tar"
    done
}

# is_static BINARY: it asks for no interpreter and no library.
is_static() { ! readelf -ld "$1" | grep -e INTERP -e NEEDED >/dev/null; }

cmd_build() {
    packages c++=g++ readelf=binutils
    compile "$@"
    pack "$@"
}

(($#)) || usage
command=$1
shift
(($#)) || set -- "${BINARIES[@]}"
case $command in
build) cmd_build "$@" ;;
pack) pack "$@" ;;
*) usage ;;
esac
