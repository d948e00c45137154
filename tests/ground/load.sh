#!/usr/bin/env bash
# load.sh IMAGE.tar...: gives images to every node of the cluster of KUBECONFIG, else of the one that
# cluster.sh brought up: a Kind cluster by kind, ours by containerd. Other clusters pull from a registry.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=load
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"

(($#)) || usage
context=$("$HERE/kubectl.sh" config current-context)
case $context in
ground) exec "$HERE/cluster.sh" load "$@" ;;
kind-*)
    PATH=$PATH:$(echo "$GROUND_CACHE"/kind-*)
    command -v kind >/dev/null || die "kind is missing: see https://kind.sigs.k8s.io"
    for archive; do kind load image-archive "$archive" --name "${context#kind-}"; done
    ;;
*) die "the cluster $context takes images from a registry: push them there (docker load, docker push)" ;;
esac
