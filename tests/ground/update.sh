#!/usr/bin/env bash
# update.sh BINARY [NAMESPACE]: compiles one service or the operator as it stands, gives its image to the nodes
# of the local cluster, and replaces its pods of NAMESPACE (all namespaces when not said) one after the other.
# Its Deployments keep their image's name: the settings of images.sh must be those it was installed with.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=update
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"

(($# == 1 || $# == 2)) || usage
export IMAGE_PROFILE=${IMAGE_PROFILE:-dev}
archive=$("$HERE/images.sh" build "$1")
"$HERE/load.sh" "$archive"

where=(--all-namespaces)
(($# == 1)) || where=(-n "$2")
name=$1
[[ $name != operator ]] || name=messaging-operator
"$HERE/kubectl.sh" get deployments "${where[@]}" -l "app.kubernetes.io/name=$name" \
    -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}' |
    while read -r namespace deployment; do
        "$HERE/kubectl.sh" -n "$namespace" rollout restart "deployment/$deployment" </dev/null
        "$HERE/kubectl.sh" -n "$namespace" rollout status "deployment/$deployment" --timeout=120s </dev/null
    done
