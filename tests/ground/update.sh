#!/usr/bin/env bash
# update.sh BINARY [NAMESPACE]: compiles one service or the operator as it stands, gives its image to the nodes
# of the local cluster, and replaces its pods of NAMESPACE (all namespaces when not said) one after the other.
# Nothing happens when the image is as it was. Deployments keep their image's name: the settings of images.sh must be those it was installed with.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=update
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"

# sum BINARY: of its archive as it is; nothing when there is none.
sum() { sha256sum 2>/dev/null <"${IMAGES:-${HERE%/tests/ground}/target/images}/$1.tar" || true; }

(($# == 1 || $# == 2)) || usage
export IMAGE_PROFILE=${IMAGE_PROFILE:-dev}
before=$(sum "$1")
archive=$("$HERE/images.sh" build "$1")
if [[ $before == "$(sum "$1")" ]]; then
    say "$1 is unchanged"
    exit
fi
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
