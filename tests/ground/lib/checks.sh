# shellcheck shell=bash
# Counts checks and says how each went.

PASSED=0
FAILED=0

# check WHAT COMMAND...: COMMAND fails at its first failing step.
check() {
    local what=$1 out status begun=$EPOCHREALTIME
    shift
    # As a condition, `set -e` would be off inside.
    set +e
    out=$(
        set -e
        "$@" 2>&1
    )
    status=$?
    set -e
    if ((status == 0)); then
        PASSED=$((PASSED + 1))
        printf 'ok      %s (%s ms)\n' "$what" $(((${EPOCHREALTIME/[.,]/} - ${begun/[.,]/}) / 1000))
    else
        FAILED=$((FAILED + 1))
        printf 'FAILED  %s\n%s\n' "$what" "$(tail -n 20 <<<"$out")"
    fi
}

# refused WHY COMMAND...: it fails and says WHY.
refused() {
    local why=$1 out
    shift
    if out=$("$@" 2>&1); then
        echo "not refused: $out"
        return 1
    fi
    echo "$out"
    [[ $out == *"$why"* ]]
}

# end_checks: fails when a check did.
end_checks() {
    echo "$PASSED passed, $FAILED failed"
    ((FAILED == 0 && PASSED > 0))
}
