#!/usr/bin/env bash
# helm.sh ARGUMENT...: helm, built once from the module that tests/tools pins, against the cluster of KUBECONFIG,
# else the one that cluster.sh brought up.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
own=${GROUND_STATE:-/var/lib/ground}/cluster/kubeconfig
[[ -n ${KUBECONFIG:-} || ! -f $own ]] || export KUBECONFIG=$own
helm=$("$HERE/../tools/install.sh" helm)/helm
exec "$helm" "$@"
