#!/usr/bin/env bash
# The images of the platform, one a binary, without a container engine: from scratch, one static binary,
# CA certificates, nobody's user.
#   images.sh build [BINARY...]  compiles, then writes FOLDER/BINARY.tar, REGISTRY/BINARY:VERSION inside; prints the paths
#   images.sh pack [BINARY...]   the same from what was compiled last
#   images.sh tag VERSION [BINARY...]  the archives of FOLDER once more, with another tag; prints FOLDER/VERSION/BINARY.tar
# The archives are OCI layouts, which `docker load` reads too; the same binary makes the same bytes.
# Settings: IMAGES (FOLDER; target/images), IMAGE_REGISTRY (messaging.dev), IMAGE_VERSION (the workspace's),
# IMAGE_PROFILE (release; dev takes what `cargo build` makes for everybody, with the libraries it asks for:
# quickly there, larger, not for others).

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
if [[ $IMAGE_PROFILE == release ]]; then
    # A folder of its own: other flags than everybody else's.
    : "${IMAGE_TARGET_DIR:=$GROUND_CACHE/target-images}"
    COMPILED=$IMAGE_TARGET_DIR/$TARGET/release
else
    : "${IMAGE_TARGET_DIR:=${CARGO_TARGET_DIR:-$ROOT/target}}"
    COMPILED=$IMAGE_TARGET_DIR/debug
fi

compile() {
    local cargo_home=${CARGO_HOME:-$HOME/.cargo} binary arguments=()
    for binary; do
        # What talks to the platform lies with the tests.
        [[ $binary != e2e ]] || arguments+=(-p tests --bin e2e)
        [[ $binary == e2e ]] || arguments+=(-p "$binary" --bin "$binary")
    done
    export CARGO_TARGET_DIR=$IMAGE_TARGET_DIR CARGO_INCREMENTAL=0
    cd "$ROOT"
    if [[ $IMAGE_PROFILE == release ]]; then
        # Static glibc: names are resolved inside libc since 2.34, so it needs no library at run time.
        # Paths of this machine stay out of the binaries; the flags are the same in every clone, so one may go on
        # with what another compiled. Where the clone lies is in no binary: cargo names its own files from its root.
        OPENSSL_STATIC=1 CFLAGS="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$IMAGE_TARGET_DIR=/target" \
            RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$IMAGE_TARGET_DIR=/target" \
            cargo build --locked --release --target "$TARGET" "${arguments[@]}" >&2
    else
        cargo build --locked "${arguments[@]}" >&2
    fi
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
    local binary files
    mkdir -p "$IMAGES"
    WORK=$(mktemp -d "$IMAGES/.work.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    echo 'hosts: files dns' >"$WORK/nsswitch.conf"
    for binary; do
        [[ -f $COMPILED/$binary ]] || die "$binary is not compiled: $SELF build $binary"
        files=("$(certificates)=etc/ssl/certs/ca-certificates.crt" "$WORK/nsswitch.conf=etc/nsswitch.conf")
        strip -o "$WORK/$binary" "$COMPILED/$binary"
        if [[ $IMAGE_PROFILE == release ]]; then
            is_static "$WORK/$binary" || die "$binary is not static"
        else
            mapfile -t -O 2 files < <(ldd "$WORK/$binary" | grep -o '/[^ ]*' | sed 's/.*/&=&/')
        fi
        # OpenSSL, which the Kafka client uses, looks elsewhere by itself.
        [[ $IMAGE_PROFILE != release ]] || export IMAGE_GZIP=1
        IMAGE_ENV='"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"' TMPDIR=$WORK \
            scratch_image "$IMAGE_REGISTRY/$binary:$IMAGE_VERSION" "$WORK/$binary" "${files[@]}" >"$WORK/tar"
        mv "$WORK/tar" "$IMAGES/$binary.tar"
        echo "$IMAGES/$binary.tar"
    done
}

# is_static BINARY: it asks for no interpreter and no library.
is_static() { ! readelf -ld "$1" | grep -e INTERP -e NEEDED >/dev/null; }

cmd_tag() {
    local version=$1 binary
    mkdir -p "$IMAGES/$version"
    WORK=$(mktemp -d "$IMAGES/.work.XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    for binary in "${@:2}"; do
        rm -rf "$WORK/image"
        mkdir "$WORK/image"
        tar -xf "$IMAGES/$binary.tar" -C "$WORK/image"
        sed -i "s|/$binary:[^\"]*\"|/$binary:$version\"|; s|\"org.opencontainers.image.ref.name\":\"[^\"]*\"|\"org.opencontainers.image.ref.name\":\"$version\"|" \
            "$WORK"/image/{index,manifest}.json
        oci_tar "$WORK/image" blobs index.json manifest.json oci-layout >"$WORK/tar"
        mv "$WORK/tar" "$IMAGES/$version/$binary.tar"
        echo "$IMAGES/$version/$binary.tar"
    done
}

cmd_build() {
    packages c++=g++ readelf=binutils
    compile "$@"
    pack "$@"
}

main() {
    local command=${1:-}
    (($# < 1)) || shift
    if [[ $command == tag ]]; then
        (($#)) || usage
        (($# > 1)) || set -- "$1" "${BINARIES[@]}"
        cmd_tag "$@"
        return
    fi
    (($#)) || set -- "${BINARIES[@]}"
    case $command in
    build) cmd_build "$@" ;;
    pack) pack "$@" ;;
    *) usage ;;
    esac
}

# Read whole before it runs: it may change meanwhile.
main "$@"; exit
