# shellcheck shell=bash
# The nodes: each has a network namespace with a containerd, a kubelet and a kube-proxy of its own.
# Node I is 10.245.0.(10+I) on the bridge ground0, where this machine is 10.245.0.1; its pods are
# 10.244.I.0/24.

NODE_PACKAGES=(
    containerd=containerd runc=runc nft=nftables ip=iproute2 ps=procps nsenter=util-linux mount=mount
    openssl=openssl curl=curl /usr/lib/cni/bridge=containernetworking-plugins
)
RUN=/run/ground
BRIDGE=ground0
HOST_IP=10.245.0.1
POD_CIDR=10.244.0.0/16
DNS_IP=10.96.0.10
PAUSE_IMAGE=ground/pause:1
PROBE_IMAGE=ground/probe:1
COREDNS_IMAGE=ground/coredns:1

node_ip() { echo "10.245.0.$((10 + $1))"; }
node_socket() { echo "$RUN/$1/containerd.sock"; }
# inside NODE COMMAND...: in its network; mounts are this machine's, which kubelet and containerd share.
inside() { nsenter "--net=/run/netns/ground-$1" "${@:2}"; }

NODE=$GROUND_CACHE/node-$(digest "$HERE"/kube/go.{mod,sum} "$HERE"/kube/cmd/*/main.go "$HERE"/kube/coredns/* "$HERE/lib/oci.sh")

build_node() {
    packages "${NODE_PACKAGES[@]}"
    [[ ! -d $NODE ]] || return 0
    find_go
    say 'building the kubelet, kube-proxy and CoreDNS: some minutes, once'
    once "$NODE" make_node
}

make_node() {
    go_build "$HERE/kube" ./cmd/node "$1/node"
    ln -s node "$1/kubelet"
    ln -s node "$1/kube-proxy"
    go_build "$HERE/kube" ./cmd/pause "$1/pause"
    go_build "$HERE/kube" ./cmd/probe "$1/probe"
    go_build "$HERE/kube/coredns" . "$1/coredns"
    mkdir "$1/images"
    scratch_image "$PAUSE_IMAGE" "$1/pause" >"$1/images/pause.tar"
    scratch_image "$PROBE_IMAGE" "$1/probe" >"$1/images/probe.tar"
    scratch_image "$COREDNS_IMAGE" "$1/coredns" >"$1/images/coredns.tar"
}

make_bridge() {
    ip link add "$BRIDGE" type bridge
    ip addr add "$HOST_IP/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    modprobe br_netfilter 2>/dev/null || true
    sysctl -q -w net.ipv4.ip_forward=1
    # Pods and nodes reach each other and this machine, nothing else.
    nft -f - <<NFT
table ip ground
delete table ip ground
table ip ground {
    chain forward {
        type filter hook forward priority filter;
        iifname "$BRIDGE" oifname != "$BRIDGE" drop
        iifname != "$BRIDGE" oifname "$BRIDGE" drop
    }
}
NFT
}

# make_network NODE COUNT
make_network() {
    local node=$1 count=$2 other
    ip netns add "ground-$node"
    ip link add "ground-v$node" type veth peer name eth0 netns "ground-$node"
    ip link set "ground-v$node" master "$BRIDGE" up
    inside "$node" ip link set lo up
    inside "$node" ip addr add "$(node_ip "$node")/24" dev eth0
    inside "$node" ip link set eth0 up
    inside "$node" ip route add default via "$HOST_IP"
    for ((other = 1; other <= count; other++)); do
        ((other == node)) || inside "$node" ip route add "10.244.$other.0/24" via "$(node_ip "$other")"
    done
    inside "$node" sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
    ip route add "10.244.$node.0/24" via "$(node_ip "$node")"
    # This machine reaches Services by way of the first node.
    ((node != 1)) || ip route add "$SERVICE_CIDR" via "$(node_ip 1)"
}

remove_networks() {
    local name
    nft delete table ip ground 2>/dev/null || true
    for name in /run/netns/ground-*; do
        [[ ! -e $name ]] || ip netns delete "${name##*/}"
    done
    # Its routes go with it; the nodes' ends went with their namespaces.
    ip link delete "$BRIDGE" 2>/dev/null || true
}

start_containerd() {
    local node=$1 dir=$STATE/$1
    mkdir -p "$dir/cni" "$RUN/$node"
    cat >"$dir/cni/10-ground.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "ground", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$dir/ipam",
    "ranges": [[{"subnet": "10.244.$node.0/24"}]],
    "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
    cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$RUN/$node/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$(node_socket "$node")"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "$dir/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
TOML
    start "containerd-$node" nsenter "--net=/run/netns/ground-$node" containerd --config "$dir/containerd.toml"
}

# ctr_ NODE ARGUMENT...
ctr_() { ctr --address "$(node_socket "$1")" --namespace k8s.io "${@:2}"; }

load_image() { ctr_ "$1" images import "$2" >/dev/null; }

# cgroup_roots: where a cgroup of a node is made: one a hierarchy in version 1.
cgroup_roots() {
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then echo /sys/fs/cgroup; else find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d; fi
}

make_cgroup() {
    local root
    for root in $(cgroup_roots); do
        mkdir -p "$root/ground-$1"
        # A new cpuset may use nothing until it is told what.
        [[ ! -f $root/cpuset.cpus ]] || {
            cat "$root/cpuset.cpus" >"$root/ground-$1/cpuset.cpus"
            cat "$root/cpuset.mems" >"$root/ground-$1/cpuset.mems"
        }
    done
}

DEVICES=/var/lib/kubelet/device-plugins/kubelet.sock

start_kubelet() {
    local node=$1 dir=$STATE/$1 ip
    ip=$(node_ip "$node")
    mkdir -p "$dir"
    make_cgroup "$node"
    new_cert ca "kubelet-$node" "/O=system:nodes/CN=system:node:ground-$node" serverAuth,clientAuth \
        "IP:$ip,DNS:ground-$node"
    new_kubeconfig "$PKI/kubelet-$node.kubeconfig" "kubelet-$node"
    # Pods resolve cluster names only.
    echo "nameserver $DNS_IP" >"$dir/resolv.conf"
    # Loaded images cannot be pulled again, so the kubelet must not collect them.
    cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ip
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-$node.crt
tlsPrivateKeyFile: $PKI/kubelet-$node.key
containerRuntimeEndpoint: unix://$(node_socket "$node")
cgroupDriver: cgroupfs
cgroupRoot: /ground-$node
failCgroupV1: false
failSwapOn: false
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
podLogsDir: $dir/pod-log
volumePluginDir: $dir/volume-plugins
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi}
YAML
    # Every kubelet of a machine listens for devices at this path, which it clears first: two that start at once end with
    # "address already in use". One after the other is fine, for no node here has devices.
    rm -f "$DEVICES"
    start "kubelet-$node" nsenter "--net=/run/netns/ground-$node" "$NODE/kubelet" --config "$dir/kubelet.yaml" \
        --kubeconfig "$PKI/kubelet-$node.kubeconfig" --root-dir "$dir/kubelet" \
        --hostname-override "ground-$node" --node-ip "$ip"
    WAIT_ON=kubelet-$node wait_for 60 "kubelet of node $node" test -S "$DEVICES"
}

start_proxy() {
    local node=$1 dir=$STATE/$1
    cat >"$dir/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $POD_CIDR
hostnameOverride: ground-$node
nodePortAddresses: [$(node_ip "$node")/32]
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
conntrack: {maxPerCore: 0, min: 0}
YAML
    start "kube-proxy-$node" nsenter "--net=/run/netns/ground-$node" "$NODE/kube-proxy" --config "$dir/proxy.yaml"
}

# kill_pods: they outlive containerd; each hangs on a shim that names our socket.
kill_pods() {
    local dir pid args child
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        args=$(tr '\0' ' ' 2>/dev/null <"$dir/cmdline") || continue
        [[ $args == *containerd-shim-runc-v2\ *"-address $RUN/"* ]] || continue
        for child in $(ps -o pid= --ppid "$pid"); do kill -KILL "$child" 2>/dev/null || true; done
        kill -KILL "$pid" 2>/dev/null || true
    done
}

remove_cgroups() {
    local root dir
    for root in $(cgroup_roots); do
        for dir in "$root"/ground-[0-9]*; do
            [[ ! -d $dir ]] || find "$dir" -depth -type d -exec rmdir {} + || return 1
        done
    done
}

# remove_mounts: they outlive the kubelet and containerd.
remove_mounts() {
    local dir
    awk -v a="$STATE/" -v b="$RUN/" 'index($2, a) == 1 || index($2, b) == 1 { print $2 }' \
        /proc/self/mounts | sort -r | while read -r dir; do umount -l "$dir"; done
}
