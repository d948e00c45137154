#!/usr/bin/env bash
# A cluster for a person, with Kafka, DynamoDB Local, Redis and an S3 server in it (namespace backends):
# Kind's where Docker runs (kind-config.yaml), else that of cluster.sh, which needs root.
#   local.sh up      starts what is missing, loads the images that `make images` made, says how to go on
#   local.sh status
#   local.sh kind ARGUMENT...
#   local.sh down    ends it, deletes its data

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=local
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
ROOT=${HERE%/tests/ground}
source "$HERE/lib/processes.sh"
source "$HERE/lib/go.sh"

KIND_VERSION=v0.33.0
NAME=messaging
KIND_KUBECONFIG=$GROUND_CACHE/kind.kubeconfig
OWN_KUBECONFIG=${GROUND_STATE:=/var/lib/ground}/cluster/kubeconfig

has_docker() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }
has_kind_cluster() { kind get clusters 2>/dev/null | grep -x "$NAME" >/dev/null; }

# find_kind: the machine's, else ours.
find_kind() {
    PATH=$PATH:$GROUND_CACHE/kind-$KIND_VERSION
    command -v kind >/dev/null || {
        find_go
        once "$GROUND_CACHE/kind-$KIND_VERSION" make_kind
    }
}

make_kind() {
    say "building kind $KIND_VERSION: a minute, once"
    GOBIN=$1 CGO_ENABLED=0 "$GO" install -trimpath "sigs.k8s.io/kind@$KIND_VERSION"
}

up_kind() {
    find_kind
    has_kind_cluster || kind create cluster --config "$ROOT/kind-config.yaml" --kubeconfig "$KIND_KUBECONFIG" --wait 120s
    [[ -f $KIND_KUBECONFIG ]] || kind get kubeconfig --name "$NAME" >"$KIND_KUBECONFIG"
    export KUBECONFIG=$KIND_KUBECONFIG
}

up_own() {
    ((EUID == 0)) || die "without Docker, the cluster of tests/ground needs root: sudo $SELF up (or start Docker)"
    [[ -f $OWN_KUBECONFIG ]] || "$HERE/cluster.sh" up >/dev/null
    export KUBECONFIG=$OWN_KUBECONFIG
}

cmd_up() {
    local archives
    if has_docker; then up_kind; else up_own; fi
    "$HERE/backends.sh" up backends
    shopt -s nullglob
    archives=("${IMAGES:-$ROOT/target/images}"/*.tar)
    ((${#archives[@]} == 0)) || "$HERE/load.sh" "${archives[@]}"
    cat <<TEXT

The cluster is up: $KUBECONFIG
Its backends: kafka.backends:9092, dynamodb.backends:8000, redis.backends:6379, objects.backends:9000

  export KUBECONFIG=$KUBECONFIG
  tests/ground/kubectl.sh get pods -A
  make images && tests/ground/load.sh target/images/*.tar   # the services, again after a change
  tilt up                                                        # or: after each change by itself
  make cluster-down
TEXT
}

cmd_status() {
    if has_docker; then
        find_kind
        kind get nodes --name "$NAME"
        KUBECONFIG=$KIND_KUBECONFIG "$HERE/kubectl.sh" get nodes,pods -A
    else
        "$HERE/cluster.sh" status
    fi
}

cmd_kind() {
    find_kind
    exec kind "$@"
}

cmd_down() {
    if has_docker; then
        find_kind
        kind delete cluster --name "$NAME" --kubeconfig "$KIND_KUBECONFIG"
        rm -f "$KIND_KUBECONFIG"
    fi
    [[ ! -d ${OWN_KUBECONFIG%/*} ]] || "$HERE/cluster.sh" down
}

(($#)) || usage
case $1 in
up | status | kind | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
