#!/usr/bin/env bash
# Checks what lies in tests/ground by using it: selftest.sh [PART...], all parts when none is named.
#   guard control-plane kafka dynamodb redis images tiltfile kind   need nothing but this machine
#   cluster                                                         needs root, and no cluster that is up

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=selftest
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
ROOT=${HERE%/tests/ground}
source "$HERE/lib/processes.sh"
source "$HERE/lib/checks.sh"
source "$HERE/lib/go.sh"
source "$HERE/lib/oci.sh"
source "$HERE/lib/selftest_parts.sh"

PARTS=(guard control-plane kafka dynamodb redis images tiltfile kind cluster)

(($#)) || set -- "${PARTS[@]}"
for part; do [[ " ${PARTS[*]} " == *" $part "* ]] || usage; done

SCRATCH=$(mktemp -d)
# Everything that a check starts ends with this script, however that ends.
export GROUND_OWNER=$$
unset GROUND_STATE KUBECONFIG
trap 'rm -rf "$SCRATCH"' EXIT
for part; do
    echo "== $part"
    "part_${part//-/_}"
done
end_checks
