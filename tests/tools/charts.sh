#!/usr/bin/env bash
# Judges the charts: lint, unit tests, and what a real API server says of everything that they render.
#   charts.sh          all of it
#   charts.sh quick    without the API server
# Helm and helm-unittest come from install.sh, the API server from tests/ground; both are cached.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

TOOLS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
ROOT=${TOOLS%/tests/tools}
CHARTS=(operator messaging-cluster dev-backends)
SYSTEM=messaging-system

say() { printf 'charts: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Values for each rendering lie in the chart's folder ci; without them it is rendered as it is.
values_of() {
    local file
    for file in "$ROOT/charts/$1"/ci/*.yaml; do
        [[ ! -f $file ]] || echo "$file"
    done
}

lint() {
    local chart file
    for chart in "${CHARTS[@]}"; do
        while read -r file; do
            helm lint --strict --quiet "$ROOT/charts/$chart" --values "$file"
        done < <(values_of "$chart")
    done
}

unit() {
    local chart
    for chart in "${CHARTS[@]}"; do
        helm-unittest --strict "$ROOT/charts/$chart" >"$WORK/unit" 2>&1 || {
            cat "$WORK/unit" >&2
            die "$chart: unit tests fail"
        }
        say "$chart: $(grep -E '^Tests:' "$WORK/unit" | tr -s ' ')"
    done
}

# What the operator's chart says must be what the operator knows: its settings, and the metrics of its alerts.
agreement() {
    local settings metrics name
    settings=$(sed -n 's/.*env = "\([A-Z_]*\)".*/\1/p' "$ROOT"/{operator,services/platform}/src/config.rs)
    metrics=$(grep -ohE '"[a-z_]+"' "$ROOT/operator/src/metrics.rs" | tr -d '"')
    [[ -n $settings && -n $metrics ]] || die 'the operator has no settings or metrics where they were looked for'
    render operator "$ROOT/charts/operator/ci/namespaced.yaml" >"$WORK/rendered.yaml"
    while read -r name; do
        # Those of AWS' own library are no settings of the operator's.
        grep -qx "$name" <<<"$settings" || [[ $name == AWS_* ]] || die "the operator has no setting $name"
    done < <(sed -n 's/.*{name: \([A-Z_]*\), value.*/\1/p' "$WORK/rendered.yaml")
    while read -r name; do
        grep -q "{name: $name, value" "$WORK/rendered.yaml" || die "the operator's chart does not set $name"
    done < <(sed -n 's/.*env = "\([A-Z_]*\)".*/\1/p' "$ROOT/operator/src/config.rs")
    while read -r name; do
        grep -qx "${name%_total}" <<<"$metrics" || die "an alert asks for $name, which the operator does not have"
    done < <(grep -oE '(controller_runtime|workqueue|leader_election|messaging_operator)_[a-z_]+' \
        "$ROOT/charts/operator/files/alerts.yaml" | sort -u)
}

# render CHART VALUES
render() {
    local name=$1
    [[ $1 != operator ]] || name=messaging-operator
    helm template "$name" "$ROOT/charts/$1" --namespace "$SYSTEM" --values "$2"
}

# Everything that each chart renders, strictly, with warnings as failures; and its pods on their own, since
# Pod Security refuses pods, and of what makes them only warns.
dry_run() {
    local chart file count=0 pods
    for chart in "${CHARTS[@]}"; do
        while read -r file; do
            render "$chart" "$file" >"$WORK/rendered.yaml"
            kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict --warnings-as-errors \
                -f "$WORK/rendered.yaml" >"$WORK/said" || die "$chart with ${file##*/} is refused"
            count=$((count + $(wc -l <"$WORK/said")))
            kubectl patch --local --type=merge --patch='{}' -o json -f "$WORK/rendered.yaml" |
                python3 "$TOOLS/pods.py" >"$WORK/pods.json"
            pods=$(grep -c '"kind": "Pod"' "$WORK/pods.json" || true)
            ((pods == 0)) || kubectl create --dry-run=server --validate=strict --warnings-as-errors \
                -f "$WORK/pods.json" >/dev/null || die "$chart with ${file##*/}: its pods are refused"
            count=$((count + pods))
        done < <(values_of "$chart")
    done
    ((count > 40)) || die "only $count objects were tried"
    say "dry run: $count objects"
}

restricted_namespace() {
    kubectl create namespace "$1" >/dev/null
    kubectl label namespace "$1" pod-security.kubernetes.io/{enforce,warn}=restricted >/dev/null
    # No controller makes it here, and no pod is admitted without.
    kubectl -n "$1" create serviceaccount default >/dev/null
}

pod_security_is_enforced() {
    ! kubectl -n "$SYSTEM" run root --image=a:1 --restart=Never --dry-run=server >"$WORK/said" 2>&1 ||
        die 'a pod that may be root was admitted: Pod Security is not enforced'
    grep -q 'violates PodSecurity' "$WORK/said" || die "a pod that may be root was refused for something else: $(<"$WORK/said")"
}

# may yes|no VERB RESOURCE[/NAME][:PART] NAMESPACE: what the operator's account may do.
may() {
    local said part=()
    [[ $3 != *:* ]] || part=(--subresource "${3#*:}")
    said=$(kubectl auth can-i "$2" "${3%:*}" "${part[@]}" -n "$4" --as="system:serviceaccount:$SYSTEM:messaging-operator" 2>/dev/null || true)
    [[ $said == "$1" ]] || die "may the operator $2 $3 in $4: $said, and should be $1"
    RIGHTS=$((RIGHTS + 1))
}

operator_release() {
    helm "$1" messaging-operator "$ROOT/charts/operator" --namespace "$SYSTEM" "${@:2}" >"$WORK/said" || die "helm $1: $(<"$WORK/said")"
}

# The keys of Secret chat-auth: private key and public key belong together.
keys_match() {
    local public
    kubectl -n team-b get secret chat-auth -o jsonpath='{.data.development\.pem}' | base64 -d >"$WORK/key.pem"
    # The last 32 bytes of the public key's DER are the key.
    public=$(openssl pkey -in "$WORK/key.pem" -pubout -outform DER | tail -c 32 | base64 -w 0 | tr '+/' '-_' | tr -d '=')
    kubectl -n team-b get secret chat-auth -o jsonpath='{.data.jwks\.json}' | base64 -d | grep -qF "\"x\":\"$public\"" ||
        die 'the public key of the development Secret is of another key'
}

# A cluster with its development Secrets: made once, kept over an upgrade, and readable one by one.
cluster_life() {
    local chart=$ROOT/charts/messaging-cluster before
    helm install chat "$chart" -n team-b -f "$chart/development.yaml" >"$WORK/said" 2>&1 || die "install: $(<"$WORK/said")"
    before=$(kubectl -n team-b get secret chat-auth -o jsonpath='{.data}')
    keys_match
    may yes get secrets/chat-auth team-b
    may yes get secrets/chat-dynamodb team-b
    may no get secrets/other team-b
    may no list secrets team-b
    helm upgrade chat "$chart" -n team-b -f "$chart/development.yaml" --set spec.gateway.replicas=3 >"$WORK/said" 2>&1 ||
        die "upgrade: $(<"$WORK/said")"
    [[ $(kubectl -n team-b get messagingcluster chat -o jsonpath='{.spec.gateway.replicas}') == 3 ]] ||
        die 'an upgrade did not reach the MessagingCluster'
    [[ $(kubectl -n team-b get secret chat-auth -o jsonpath='{.data}') == "$before" ]] || die 'an upgrade made new keys'
    helm uninstall chat -n team-b >/dev/null 2>&1
    helm install chat "$chart" -n team-b -f "$chart/development.yaml" >/dev/null 2>&1 || die 'the cluster is not made anew'
    [[ $(kubectl -n team-b get secret chat-auth -o jsonpath='{.data}') == "$before" ]] || die 'a second install made new keys'
    helm uninstall chat -n team-b >/dev/null 2>&1
    may no get secrets/chat-auth team-b
}

# The chart's whole life on the API server, and what the operator may do in it.
life() {
    local name=messagingclusters.messaging.dev hash verb
    RIGHTS=0
    operator_release install --set 'secretNamespaces={team-a}'
    for verb in get list watch patch; do may yes "$verb" messagingclusters team-b; done
    for verb in get list watch create patch delete; do
        may yes "$verb" deployments.apps team-b
        may yes "$verb" configmaps team-b
        may yes "$verb" networkpolicies.networking.k8s.io team-b
    done
    for verb in create delete update; do may no "$verb" messagingclusters team-b; done
    may yes patch messagingclusters:status team-b
    may yes update messagingclusters:finalizers team-b
    may yes get secrets team-a
    for verb in list watch create patch delete; do may no "$verb" secrets team-a; done
    may no get secrets team-b
    may no get secrets "$SYSTEM"
    may yes update leases.coordination.k8s.io/messaging-operator "$SYSTEM"
    may no update leases.coordination.k8s.io/other "$SYSTEM"
    may no get leases.coordination.k8s.io/messaging-operator team-a
    may yes list pods team-b
    may no delete pods team-b
    may no create pods:exec team-b
    may no create rolebindings.rbac.authorization.k8s.io team-b
    may no escalate roles.rbac.authorization.k8s.io team-b
    may no list namespaces team-b
    cluster_life

    # An older definition is replaced with the chart: Helm's own folder for definitions never does.
    hash=$(kubectl get crd "$name" -o jsonpath='{.metadata.annotations.messaging\.dev/schema-hash}')
    kubectl patch crd "$name" --type=json -p '[{"op": "remove", "path": "/spec/versions/0/selectableFields"},
        {"op": "replace", "path": "/metadata/annotations/messaging.dev~1schema-hash", "value": "old"}]' >/dev/null
    operator_release upgrade --set 'watchNamespaces={team-a}' --force
    [[ $(kubectl get crd "$name" -o jsonpath='{.metadata.annotations.messaging\.dev/schema-hash}') == "$hash" &&
        -n $(kubectl get crd "$name" -o jsonpath='{.spec.versions[0].selectableFields}') ]] ||
        die 'an upgrade of the chart left an old definition'

    # From all namespaces to one: nothing is left elsewhere.
    may yes create deployments.apps team-a
    may yes get secrets team-a
    may no list secrets team-a
    may no get secrets team-b
    may no list messagingclusters team-b
    may no list deployments.apps team-b
    may no get "customresourcedefinitions.apiextensions.k8s.io/$name" team-a
    helm uninstall messaging-operator --namespace "$SYSTEM" >/dev/null 2>&1
    kubectl get crd "$name" >/dev/null || die 'the definition went with the chart'
    say "install, upgrade, uninstall; $RIGHTS rights"
}

server() {
    local folder
    folder=$(mktemp -d "${TMPDIR:-/tmp}/charts-ground.XXXXXX")
    KUBECONFIG=$(GROUND_STATE=$folder GROUND_OWNER=$$ "$ROOT/tests/ground/control_plane.sh" up 2>"$WORK/ground" | tail -n 1) ||
        die "no API server: $(<"$WORK/ground")"
    export KUBECONFIG
    PATH=${KUBECONFIG%/*}/bin:$PATH
    kubectl apply --server-side -f "$TOOLS/manifests" >/dev/null
    restricted_namespace "$SYSTEM"
    restricted_namespace team-a
    restricted_namespace team-b
    pod_security_is_enforced
    life
    # Pods are admitted with their ServiceAccount only.
    kubectl -n "$SYSTEM" create serviceaccount messaging-operator >/dev/null
    dry_run
    python3 "$TOOLS/admission.py" "$ROOT/crds/generated/messagingclusters.yaml" "$ROOT/crds/tests/admission.yaml"
    GROUND_STATE=$folder "$ROOT/tests/ground/control_plane.sh" down 2>/dev/null
}

[[ $# == 0 || $* == quick ]] || {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
for command in python3 openssl; do
    command -v "$command" >/dev/null || die "$command is missing: install it with your package manager"
done
WORK=$(mktemp -d "${TMPDIR:-/tmp}/charts.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
# Nothing of the person's own Helm is read or written.
export HELM_CACHE_HOME=$WORK HELM_CONFIG_HOME=$WORK HELM_DATA_HOME=$WORK
for folder in $("$TOOLS/install.sh" helm helm-unittest); do PATH=$folder:$PATH; done
cmp -s "$ROOT/crds/generated/messagingclusters.yaml" "$ROOT/charts/operator/files/messagingclusters.yaml" ||
    die "the operator's chart has another definition than crds/generated: run make crds"
lint
unit
agreement
[[ ${1:-} == quick ]] || server
