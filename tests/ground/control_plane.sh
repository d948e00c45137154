#!/usr/bin/env bash
# Kubernetes' control plane on 127.0.0.1: etcd and the API server, with TLS, RBAC and Pod Security.
#   control_plane.sh build                            once, cached; up does it too
#   control_plane.sh up [--controllers] [--scheduler] the last line printed is the kubeconfig's path
#   control_plane.sh down                             ends all, deletes the state
#   control_plane.sh kubectl ARGUMENT...              against what is up
# Several run side by side: ports are free ones, the state is GROUND_STATE/control-plane (a fresh
# temporary folder when GROUND_STATE is not set). With GROUND_OWNER=PID all ends when that process does.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=control-plane
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/go.sh"
source "$HERE/lib/kube.sh"
source "$HERE/lib/pki.sh"

cmd_build() {
    packages openssl=openssl curl=curl
    build_control_plane
}

cmd_up() {
    local controllers='' scheduler=''
    while (($#)); do
        case $1 in
        --controllers) controllers=yes ;;
        --scheduler) scheduler=yes ;;
        *) usage ;;
        esac
        shift
    done
    cmd_build
    new_state
    # shellcheck disable=SC2119 # no names beside its own
    new_control_plane
    start_etcd
    start_apiserver --endpoint-reconciler-type none
    WAIT_ON=kube-apiserver wait_for 60 'API server' api /readyz
    [[ -z $controllers ]] || start_controllers
    [[ -z $scheduler ]] || start_scheduler
    [[ -z $controllers ]] ||
        WAIT_ON=kube-controller-manager wait_for 60 'service account default/default' default_account_exists
    echo "$KUBECONFIG"
}

cmd_down() {
    old_state
    end_all "${SERVERS[@]}"
    remove_state
}

cmd_kubectl() {
    old_state
    use_control_plane
    exec "$BIN/kubectl" "$@"
}

(($#)) || usage
case $1 in
build | up | down | kubectl) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
