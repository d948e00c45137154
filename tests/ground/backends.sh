#!/usr/bin/env bash
# Kafka, DynamoDB Local, Redis and an S3 server as pods of a cluster.
#   backends.sh build             makes their images, once, cached; prints the archives' paths
#   backends.sh load              gives the images to the cluster's nodes
#   backends.sh up [NAMESPACE]    loads them, installs charts/dev-backends in NAMESPACE (backends), waits until all is Ready
#   backends.sh down [NAMESPACE]  deletes them, and NAMESPACE if up made it
# Services of NAMESPACE:
#   kafka:9092     PLAINTEXT; kafka:9094 is SASL_PLAINTEXT, SCRAM-SHA-512, user app, password app-secret
#   dynamodb:8000  any region, any alphanumeric access key
#   redis:6379     no password
#   objects:9000   versitygw; path-style buckets, us-east-1, key app, secret app-secret
# The images have what is used of the public ones where those have it, so that one chart runs either:
#   messaging.dev/kafka:4.1.1           java on the PATH, /opt/kafka/libs/*.jar       (apache/kafka)
#   messaging.dev/dynamodb-local:3.1.0  java, /home/dynamodblocal/DynamoDBLocal.jar   (amazon/dynamodb-local)
#   messaging.dev/redis:7.0             redis-server, redis-cli on the PATH           (redis)
#   messaging.dev/objects:1             /usr/local/bin/versitygw                      (versity/versitygw)
# The cluster is that of KUBECONFIG, else the one that cluster.sh brought up.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=backends
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/go.sh"
source "$HERE/lib/oci.sh"
source "$HERE/lib/backend_images.sh"

CHART=${HERE%/tests/ground}/charts/dev-backends
LABEL=app.kubernetes.io/managed-by=backends.sh
BUILT=$GROUND_CACHE/backends-$(digest "$HERE"/{kafka,dynamodb-local}.sh "$HERE"/lib/{backend_images,oci,jars}.sh)

build() {
    [[ ! -d $BUILT ]] || return 0
    find_go
    once "$BUILT" make_images
}

cmd_build() {
    build
    printf '%s\n' "$BUILT"/*.tar
}

cmd_load() {
    build
    "$HERE/load.sh" "$BUILT"/*.tar
}

k() { "$HERE/kubectl.sh" "$@"; }

cmd_up() {
    local namespace=${1:-backends}
    cmd_load
    if ! k get namespace "$namespace" >/dev/null 2>&1; then
        k create namespace "$namespace" >/dev/null
        k label namespace "$namespace" "$LABEL" pod-security.kubernetes.io/enforce=restricted >/dev/null
    fi
    "$HERE/helm.sh" upgrade --install backends "$CHART" --namespace "$namespace" --values "$CHART/local-images.yaml" \
        --wait --timeout 3m >/dev/null || die "not all is Ready: see kubectl -n $namespace describe pods"
    k -n "$namespace" get services
}

cmd_down() {
    local namespace=${1:-backends}
    k get namespace "$namespace" >/dev/null 2>&1 || return 0
    "$HERE/helm.sh" uninstall backends --namespace "$namespace" --ignore-not-found --wait >/dev/null
    k delete namespace -l "$LABEL" --field-selector "metadata.name=$namespace" >/dev/null
}

(($#)) || usage
case $1 in
build | load | up | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
