#!/usr/bin/env bash
# guard.sh OWNER SINCE STARTER SINCE SCRIPT STATE: waits until the process OWNER is gone, then ends
# all that SCRIPT started in STATE. Started by lib/processes.sh.
set -uo pipefail

owner=$1 owner_since=$2 starter=$3 starter_since=$4 script=$5 state=$6

since() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] || ${stat[17]} -gt 1 ]] && printf '%s' "${stat[19]}"
}

# A wait without a child process: nothing is ever written there.
exec {never}<> <(:)
while [[ $(since "$owner") == "$owner_since" ]]; do
    [[ -d $state ]] || exit 0
    read -r -t 0.3 -u "$never"
done

[[ $(since "$starter") != "$starter_since" ]] || kill -KILL "$starter"
# It would end this process too.
rm -f "$state/pid/guard"
exec "$script" down
