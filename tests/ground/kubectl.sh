#!/usr/bin/env bash
# kubectl.sh ARGUMENT...: kubectl, the machine's or ours, against the cluster of KUBECONFIG, else the one that
# cluster.sh brought up.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=kubectl
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/kube.sh"

own=${GROUND_STATE:-/var/lib/ground}/cluster/kubeconfig
[[ -n ${KUBECONFIG:-} || ! -f $own ]] || export KUBECONFIG=$own
[[ -n ${KUBECONFIG:-} || -f $HOME/.kube/config ]] || die 'no cluster: set KUBECONFIG, or run make cluster'
if [[ -x $CONTROL_PLANE/kubectl ]]; then exec "$CONTROL_PLANE/kubectl" "$@"; fi
command -v kubectl >/dev/null || die "kubectl is missing: run $HERE/control_plane.sh build"
exec kubectl "$@"
