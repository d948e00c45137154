#!/usr/bin/env bash
# A real Kubernetes cluster on this machine, without a container engine and without a registry: the
# control plane of control_plane.sh, two nodes (containerd, kubelet, kube-proxy), CoreDNS. Needs root.
#   cluster.sh build              once, cached; up does it too
#   cluster.sh up [NODES]         the last line printed is the kubeconfig's path
#   cluster.sh load IMAGE.tar...  gives images to all nodes (pull policy IfNotPresent or Never)
#   cluster.sh kubectl ARGUMENT...
#   cluster.sh ctr NODE ARGUMENT...  containerd's client on node 1, 2, …
#   cluster.sh status             processes with memory and CPU time, nodes, pods
#   cluster.sh selftest           checks a cluster that is up from end to end
#   cluster.sh down               ends all, deletes the state
# There is one cluster a machine. Its state is GROUND_STATE/cluster (/var/lib/ground/cluster when
# GROUND_STATE is not set). With GROUND_OWNER=PID all ends when that process does.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=cluster
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
: "${GROUND_STATE:=/var/lib/ground}"
source "$HERE/lib/processes.sh"
source "$HERE/lib/go.sh"
source "$HERE/lib/kube.sh"
source "$HERE/lib/pki.sh"
source "$HERE/lib/oci.sh"
source "$HERE/lib/node.sh"

API_HOST=$HOST_IP

cmd_build() {
    packages "${NODE_PACKAGES[@]}"
    build_control_plane
    build_node
}

cmd_up() {
    local count=${1:-2} node nodes
    [[ $count =~ ^[1-9]$ ]] || usage
    ((EUID == 0)) || die 'needs root'
    [[ ! -e $RUN ]] || die "a cluster is up already, or was not ended: $RUN is there"
    cmd_build
    new_state
    mapfile -t nodes < <(seq "$count")
    echo "${nodes[@]}" >"$STATE/nodes"
    mkdir "$RUN"
    make_bridge
    for node in "${nodes[@]}"; do
        make_network "$node" "$count"
        start_containerd "$node"
    done
    new_control_plane DNS:ground
    start_etcd
    # shellcheck disable=SC2119 # no flags beside its own
    start_apiserver
    for node in "${nodes[@]}"; do load_all "$node" "$NODE"/images/*.tar; done
    WAIT_ON=kube-apiserver wait_for 60 'API server' api /readyz
    start_controllers
    start_scheduler
    new_cert ca proxy /CN=system:kube-proxy clientAuth
    new_kubeconfig "$PKI/proxy.kubeconfig" proxy
    for node in "${nodes[@]}"; do
        start_kubelet "$node"
        start_proxy "$node"
    done
    "$BIN/kubectl" apply -f "$HERE/manifests/coredns.yaml" >/dev/null
    for node in "${nodes[@]}"; do
        WAIT_ON=kubelet-$node wait_for 60 "node $node" api "/api/v1/nodes/ground-$node"
    done
    "$BIN/kubectl" wait --for=condition=Ready nodes --all --timeout=60s >/dev/null
    "$BIN/kubectl" -n kube-system rollout status deployment/coredns --timeout=90s >/dev/null
    wait_for 60 'service account default/default' default_account_exists
    echo "$KUBECONFIG"
}

# load_all NODE IMAGE.tar...
load_all() {
    local node=$1 image
    shift
    WAIT_ON=containerd-$node wait_for 30 containerd ctr_ "$node" version
    for image; do load_image "$node" "$image"; done
}

nodes() { [[ ! -f $STATE/nodes ]] || cat "$STATE/nodes"; }

cmd_load() {
    local node
    (($#)) || usage
    old_state
    for node in $(nodes); do load_all "$node" "$@"; done
}

cmd_down() {
    local node names=()
    old_state
    for node in $(nodes); do names+=("kubelet-$node" "containerd-$node" "kube-proxy-$node"); done
    end_all "${names[@]}" "${SERVERS[@]}"
    kill_pods
    remove_mounts
    wait_for 10 'end of the pods' remove_cgroups
    remove_networks
    rm -rf "$RUN"
    remove_state
}

cmd_status() {
    local file name pid _
    old_state
    use_control_plane
    for file in "$PIDS"/*; do
        name=${file##*/}
        read -r pid _ <"$file"
        if alive "$name"; then
            ps -o pid=,rss=,cputime= -p "$pid" |
                awk -v n="$name" '{ printf "%-24s pid %-7s %4d MiB  cpu %s\n", n, $1, $2 / 1024, $3 }'
        else
            echo "$name: not running"
        fi
    done
    "$BIN/kubectl" get nodes,pods -A -o wide
}

cmd_kubectl() {
    old_state
    use_control_plane
    exec "$BIN/kubectl" "$@"
}

cmd_ctr() {
    (($# > 1)) || usage
    ctr_ "$@"
}

cmd_selftest() {
    old_state
    use_control_plane
    exec "$HERE/selftest_cluster.sh" "$KUBECONFIG"
}

(($#)) || usage
case $1 in
build | up | load | kubectl | ctr | status | selftest | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
