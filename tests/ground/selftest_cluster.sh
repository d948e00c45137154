#!/usr/bin/env bash
# Checks a cluster that is up (cluster.sh up) from end to end: selftest_cluster.sh KUBECONFIG. Called by
# `cluster.sh selftest`.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

export KUBECONFIG=${1:?path of the kubeconfig}
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/checks.sh"
source "$HERE/lib/oci.sh"

scratch=$(mktemp -d)
kubectl=("$HERE/kubectl.sh")
k() { "${kubectl[@]}" -n selftest "$@"; }
all() { "${kubectl[@]}" "$@"; }

pod() {
    k get pods -l app=probe -o go-template='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}
{{end}}{{end}}' | sed -n 1p
}
exec_get() { k exec "$(pod)" -- /probe get "$1"; }
service_ip() { k get service probe -o jsonpath='{.spec.clusterIP}'; }
answers_version() { [[ $(exec_get http://probe/) == *" $1" ]]; }

spreads_over_nodes() {
    local nodes used
    nodes=$(k get nodes -o name | wc -l)
    used=$(k get pods -l app=probe -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)
    echo "$used of $nodes nodes"
    ((used == (nodes < 2 ? nodes : 2)))
}

reaches_both_pods() {
    local seen
    seen=$(for _ in {1..20}; do exec_get http://probe.selftest.svc.cluster.local/; done | sort -u | wc -l)
    ((seen == 2))
}

# A rolling update under requests, none of which may fail.
rolls_out() {
    local url requests
    url=http://$(service_ip)/
    touch "$scratch/go"
    {
        while [[ -e $scratch/go ]]; do
            curl -fsS --max-time 2 "$url" || echo lost
            sleep 0.02
        done
    } >"$scratch/answers" 2>&1 &
    k set env deployment/probe VERSION=two
    k rollout status deployment/probe --timeout=60s
    # The old pods end after the rollout: no request may be lost then either.
    k wait pod -l app=probe,pod-template-hash="$1" --for=delete --timeout=60s
    rm "$scratch/go"
    wait $!
    requests=$(wc -l <"$scratch/answers")
    echo "$requests requests"
    sort "$scratch/answers" | uniq -c
    ((requests > 20))
    ! grep lost "$scratch/answers" || return 1
    answers_version two
}
template_hash() { k get pod "$(pod)" -o jsonpath='{.metadata.labels.pod-template-hash}'; }

pod_comes_back() {
    local gone
    gone=pod/$(pod)
    k delete "$gone" --wait=true
    k rollout status deployment/probe --timeout=60s
    refused NotFound k get "$gone"
}

forwards_a_port() {
    local pid line port code=0
    exec 3< <(exec "${kubectl[@]}" -n selftest port-forward service/probe :80 2>&1)
    pid=$!
    read -r -t 10 line <&3
    port=${line#*127.0.0.1:}
    curl -fsS --max-time 5 "http://127.0.0.1:${port%% *}/" || code=$?
    kill "$pid"
    return "$code"
}

log_has_requests() { [[ $(k logs -l app=probe --tail=-1) == *' /'* ]]; }
reaches_service_from_outside() { curl -fsS --max-time 5 "http://$(service_ip)/"; }
privileged_pod() { k run bad --image=ground/probe:1 --privileged --restart=Never; }

# A binary linked as the platform's are (static glibc) finds Services by name.
resolver_image() {
    cat >"$scratch/resolver.c" <<'C'
#include <netdb.h>
#include <stdio.h>
int main(int count, char **names) {
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    for (int i = 1; i < count; i++) {
        int code = getaddrinfo(names[i], "80", &hints, &found);
        printf("%s: %s\n", names[i], code ? gai_strerror(code) : "found");
        if (code) return 1;
    }
    return 0;
}
C
    cc -static -O2 -w -o "$scratch/resolver" "$scratch/resolver.c"
    echo 'hosts: files dns' >"$scratch/nsswitch.conf"
    TMPDIR=$scratch scratch_image ground/resolver:1 "$scratch/resolver" "$scratch/nsswitch.conf=etc/nsswitch.conf" >"$scratch/resolver.tar"
    "$HERE/load.sh" "$scratch/resolver.tar"
}
resolves() {
    k run resolver --image=ground/resolver:1 --restart=Never --overrides '{"spec": {"securityContext":
        {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "resolver",
        "image": "ground/resolver:1", "args": ["probe", "probe.selftest", "probe.selftest.svc.cluster.local", "'"$1"'"],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}'
    k wait pod/resolver --for=jsonpath='{.status.phase}'="$2" --timeout=30s
    k logs resolver
    k delete pod resolver --now
}

widget() {
    all apply -f - <<YAML
apiVersion: selftest.ground/v1
kind: Widget
metadata: {name: w}
spec: {min: $1, max: $2}
YAML
}
widget_condition() {
    all patch widget w --subresource=status --type=merge \
        -p '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    all wait widget/w --for=condition=Ready --timeout=5s
}

cleanup() {
    rm -rf "$scratch"
    all delete --ignore-not-found -f "$HERE/manifests/probe.yaml" -f "$HERE/manifests/crd.yaml" >/dev/null
}
trap cleanup EXIT

check 'objects accepted: Deployment, Service, HPA, PDB, NetworkPolicy' all apply -f "$HERE/manifests/probe.yaml"
check 'deployment becomes Available' k wait deployment/probe --for=condition=Available --timeout=60s
check 'pods lie on different nodes' spreads_over_nodes
check 'exec in a pod, Service by its short name' answers_version one
check 'Service by its full name, spread over both pods' reaches_both_pods
check 'this machine reaches the ClusterIP' reaches_service_from_outside
check 'an image is made and given to the nodes' resolver_image
check 'a static binary finds Services by name' resolves kubernetes.default Succeeded
check 'a name that does not exist is not found' resolves nobody.default Failed
check 'logs' log_has_requests
check 'port-forward' forwards_a_port
check 'rolling update, no request lost' rolls_out "$(template_hash)"
check 'a deleted pod comes back' pod_comes_back
check 'Pod Security refuses a privileged pod' refused 'violates PodSecurity' privileged_pod
check 'CRD accepted' all apply -f "$HERE/manifests/crd.yaml"
check 'CRD established' all wait crd/widgets.selftest.ground --for=condition=Established --timeout=10s
check 'CEL rule lets a valid object pass' widget 1 2
check 'CEL rule refuses an invalid object' refused 'min must not exceed max' widget 3 2
check 'CEL transition rule refuses a change' refused 'min is immutable' widget 2 3
check 'status subresource and kubectl wait' widget_condition
end_checks
