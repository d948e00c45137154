# shellcheck shell=bash
# Kubernetes' control plane: built from the modules pinned in kube/go.mod, and started.

KUBE_VERSION=v1.34.4
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
API_HOST=127.0.0.1

# go_build FOLDER PACKAGE OUTPUT: FOLDER of a go.mod; the same sources make the same bytes.
go_build() (
    version=k8s.io/component-base/version
    cd "$1" || exit
    CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off nice -n 5 "$GO" build -o "$3" \
        -trimpath -buildvcs=false -tags grpcnotrace -ldflags "-s -w
        -X $version.gitVersion=$KUBE_VERSION -X $version.gitMajor=1 -X $version.gitMinor=34
        -X $version.gitTreeState=clean -X $version.buildDate=1970-01-01T00:00:00Z" "$2"
)

CONTROL_PLANE=$GROUND_CACHE/control-plane-$(digest "$HERE"/kube/go.{mod,sum} "$HERE/kube/cmd/control-plane/main.go")

build_control_plane() {
    [[ ! -d $CONTROL_PLANE ]] || return 0
    find_go
    say "building Kubernetes $KUBE_VERSION: some minutes, once"
    once "$CONTROL_PLANE" make_control_plane
}

make_control_plane() {
    local name
    go_build "$HERE/kube" ./cmd/control-plane "$1/control-plane"
    for name in etcd kubectl kube-apiserver kube-controller-manager kube-scheduler; do
        ln -s control-plane "$1/$name"
    done
}

# use_control_plane: sets where the control plane of STATE is found.
use_control_plane() {
    PKI=$STATE/pki
    BIN=$STATE/bin
    export KUBECONFIG=$STATE/kubeconfig
    [[ ! -f $STATE/ports ]] || read -r PORT_API PORT_ETCD PORT_PEER <"$STATE/ports"
}

# new_control_plane [SUBJECT_ALT_NAME...]: ports, certificates and kubeconfig.
new_control_plane() {
    free_ports 3
    echo "${PORTS[@]}" >"$STATE/ports"
    use_control_plane
    ln -s "$CONTROL_PLANE" "$BIN"
    new_pki "$@"
}

# api PATH: GET as admin.
api() {
    curl -fsS --max-time 5 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
        "https://$API_HOST:$PORT_API$1"
}

start_etcd() {
    start etcd "$BIN/etcd" --name ground --data-dir "$STATE/etcd" \
        --listen-client-urls "http://127.0.0.1:$PORT_ETCD" \
        --advertise-client-urls "http://127.0.0.1:$PORT_ETCD" \
        --listen-peer-urls "http://127.0.0.1:$PORT_PEER" \
        --initial-advertise-peer-urls "http://127.0.0.1:$PORT_PEER" \
        --initial-cluster "ground=http://127.0.0.1:$PORT_PEER" \
        --unsafe-no-fsync --log-level warn
}

# start_apiserver [FLAG...]
start_apiserver() {
    start kube-apiserver "$BIN/kube-apiserver" \
        --etcd-servers "http://127.0.0.1:$PORT_ETCD" \
        --bind-address "$API_HOST" --advertise-address "$API_HOST" --secure-port "$PORT_API" \
        --service-cluster-ip-range "$SERVICE_CIDR" \
        --authorization-mode Node,RBAC \
        --enable-admission-plugins NodeRestriction \
        --allow-privileged \
        --client-ca-file "$PKI/ca.crt" \
        --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
        --kubelet-certificate-authority "$PKI/ca.crt" \
        --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" \
        --kubelet-client-key "$PKI/apiserver-kubelet-client.key" \
        --kubelet-preferred-address-types InternalIP \
        --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" \
        --requestheader-allowed-names front-proxy-client \
        --requestheader-username-headers X-Remote-User \
        --requestheader-group-headers X-Remote-Group \
        --requestheader-extra-headers-prefix X-Remote-Extra- \
        --proxy-client-cert-file "$PKI/front-proxy-client.crt" \
        --proxy-client-key-file "$PKI/front-proxy-client.key" \
        --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$PKI/service-account.pub" \
        --service-account-signing-key-file "$PKI/service-account.key" \
        "$@"
}

start_controllers() {
    start kube-controller-manager "$BIN/kube-controller-manager" \
        --kubeconfig "$PKI/controllers.kubeconfig" \
        --authentication-kubeconfig "$PKI/controllers.kubeconfig" \
        --authorization-kubeconfig "$PKI/controllers.kubeconfig" \
        --secure-port 0 \
        --leader-elect=false \
        --use-service-account-credentials \
        --root-ca-file "$PKI/ca.crt" \
        --service-account-private-key-file "$PKI/service-account.key" \
        --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key"
}

start_scheduler() {
    start kube-scheduler "$BIN/kube-scheduler" \
        --kubeconfig "$PKI/scheduler.kubeconfig" \
        --authentication-kubeconfig "$PKI/scheduler.kubeconfig" \
        --authorization-kubeconfig "$PKI/scheduler.kubeconfig" \
        --secure-port 0 \
        --leader-elect=false
}

default_account_exists() { api /api/v1/namespaces/default/serviceaccounts/default; }

SERVERS=(kube-scheduler kube-controller-manager kube-apiserver etcd)
