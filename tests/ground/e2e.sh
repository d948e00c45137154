#!/usr/bin/env bash
# e2e.sh [ARGUMENT...]: tries the platform on the cluster of KUBECONFIG, else on that of `make cluster`, which it
# starts when it is not there: gives the images to it under two tags, then runs `e2e run ARGUMENT...`.
# Settings: IMAGES, IMAGE_PROFILE (dev) and others of images.sh; E2E_LOAD=no where the cluster pulls both tags
# of the images from IMAGE_REGISTRY.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=e2e
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
ROOT=${HERE%/tests/ground}
source "$HERE/lib/processes.sh"

export IMAGES=${IMAGES:-$ROOT/target/images} IMAGE_PROFILE=${IMAGE_PROFILE:-dev}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
: "${IMAGE_VERSION:=$version}"
export IMAGE_VERSION
binaries=(gateway ingest fanout chatmgmt)

if ! "$HERE/kubectl.sh" version >/dev/null 2>&1; then
    [[ -z ${KUBECONFIG:-} ]] || die "the cluster of $KUBECONFIG does not answer"
    KUBECONFIG=$("$HERE/local.sh" up | tail -n 1)
    export KUBECONFIG
fi
if [[ -z $("$HERE/kubectl.sh" get deployments -A -l app.kubernetes.io/name=messaging-operator -o name) ]]; then
    binaries+=(operator)
fi

if [[ ${E2E_LOAD:-yes} == yes ]]; then
    archives=()
    for binary in "${binaries[@]}"; do
        [[ -f $IMAGES/$binary.tar ]] || "$HERE/images.sh" build "$binary" >/dev/null
        archives+=("$IMAGES/$binary.tar")
    done
    # The people's pod is always as the tests are.
    archives+=("$("$HERE/images.sh" build e2e)")
    mapfile -t others < <("$HERE/images.sh" tag "$IMAGE_VERSION-b" gateway ingest fanout chatmgmt)
    say "giving the images to the cluster"
    "$HERE/load.sh" "${archives[@]}" "${others[@]}" >/dev/null
fi

compiled=${CARGO_TARGET_DIR:-$ROOT/target}/debug/e2e
[[ -x $compiled ]] || (cd "$ROOT" && cargo build --locked -p tests --bin e2e)
cd "$ROOT"
exec "$compiled" run --version "$IMAGE_VERSION" --other-version "$IMAGE_VERSION-b" \
    --registry "${IMAGE_REGISTRY:-messaging.dev}" "$@"
