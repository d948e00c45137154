#!/usr/bin/env bash
# A cluster for a person: Kind's where Docker runs (kind-config.yaml), else that of cluster.sh, which needs root.
#   local.sh up        starts what is missing of it, with Kafka, DynamoDB Local, Redis and an S3 server in the
#                      namespace backends; the last line printed is the kubeconfig's path
#   local.sh platform  starts the platform on it: the operator in messaging-system, and the MessagingCluster chat in
#                      messaging, of the images in target/images (made by the profile dev when there are none)
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
    if has_docker; then up_kind; else up_own; fi
    "$HERE/backends.sh" up backends >&2
    echo "$KUBECONFIG"
}

cmd_platform() {
    local images=${IMAGES:-$ROOT/target/images} binary charts=$ROOT/charts
    KUBECONFIG=$(cmd_up | tail -n 1)
    export KUBECONFIG
    for binary in gateway ingest fanout chatmgmt operator; do
        [[ -f $images/$binary.tar ]] || IMAGE_PROFILE=${IMAGE_PROFILE:-dev} "$HERE/images.sh" build "$binary" >/dev/null
        "$HERE/load.sh" "$images/$binary.tar"
    done
    restricted messaging-system
    restricted messaging
    "$HERE/helm.sh" upgrade --install messaging-operator "$charts/operator" --namespace messaging-system \
        --wait --timeout 3m >/dev/null
    "$HERE/helm.sh" upgrade --install chat "$charts/messaging-cluster" --namespace messaging \
        --values "$charts/messaging-cluster/development.yaml" >/dev/null
    "$HERE/kubectl.sh" -n messaging wait messagingcluster/chat --for=condition=Ready --timeout=5m >/dev/null
    "$HERE/kubectl.sh" -n messaging get messagingcluster
    cat <<TEXT

  export KUBECONFIG=$KUBECONFIG
  tests/ground/kubectl.sh get pods -A
  tests/ground/kubectl.sh -n messaging port-forward service/chat-gateway 8080:8080 &
  tests/ground/kubectl.sh -n messaging port-forward service/chat-chatmgmt 8081:8080 &
  tests/ground/update.sh gateway     # one binary anew, after a change; tilt up does it by itself
  make cluster-down
TEXT
}

# restricted NAMESPACE: makes it, with the strictest rules for pods.
restricted() {
    "$HERE/kubectl.sh" get namespace "$1" >/dev/null 2>&1 || "$HERE/kubectl.sh" create namespace "$1" >/dev/null
    "$HERE/kubectl.sh" label --overwrite namespace "$1" pod-security.kubernetes.io/enforce=restricted >/dev/null
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
up | platform | status | kind | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
