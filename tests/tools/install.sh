#!/usr/bin/env bash
# Builds the tools that judge charts, from the modules pinned in go.mod beside this: once, cached.
#   install.sh TOOL...   helm, helm-unittest; prints one folder a line, each holding the tool of its name
# Takes a machine's own Go, or fetches one. A minute or two for both on two idle cores.

# shellcheck source-path=SCRIPTDIR/../ground
set -euo pipefail

# shellcheck disable=SC2034 # says who speaks
PART=tools
SELF=$(readlink -f "${BASH_SOURCE[0]}")
TOOLS=${SELF%/*}
HERE=${TOOLS%/*}/ground
source "$HERE/lib/processes.sh"
source "$HERE/lib/go.sh"

declare -A PACKAGES=(
    [helm]=helm.sh/helm/v3/cmd/helm
    [helm-unittest]=github.com/helm-unittest/helm-unittest/cmd/helm-unittest
)

# What charts see where no cluster is asked.
HELM=helm.sh/helm/v3
STAMPS="-X $HELM/internal/version.version=v3.22.0
    -X $HELM/pkg/chartutil.k8sVersionMajor=1 -X $HELM/pkg/chartutil.k8sVersionMinor=34
    -X $HELM/pkg/lint/rules.k8sVersionMajor=1 -X $HELM/pkg/lint/rules.k8sVersionMinor=34"

# make_tool TOOL FOLDER
make_tool() {
    say "building $1: a minute, once"
    cd "$TOOLS"
    CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off nice -n 5 "$GO" build -trimpath -buildvcs=false -ldflags "-s -w $STAMPS" \
        -o "$2/$1" "${PACKAGES[$1]}"
}

(($#)) || usage
for tool; do
    [[ -v PACKAGES[$tool] ]] || usage
    folder=$GROUND_CACHE/$tool-$(digest "$SELF" "$TOOLS"/go.{mod,sum})
    [[ -d $folder ]] || {
        find_go
        once "$folder" make_tool "$tool"
    }
    echo "$folder"
done
