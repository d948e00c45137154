#!/usr/bin/env bash
# Redis on 127.0.0.1, from the system's package.
#   redis.sh up [plain|secure]  the last line printed is HOST:PORT; secure means TLS alone (the CA is
#                               GROUND_STATE/redis/tls/ca.crt) and the user app, password app-secret, alone
#   redis.sh kill               ends it at once, as a crash would
#   redis.sh start              starts it again, with its port and data
#   redis.sh down               ends it, deletes the data
# Several run side by side: ports are free ones, the state is GROUND_STATE/redis (a fresh temporary
# folder when GROUND_STATE is not set). With GROUND_OWNER=PID all ends when that process does.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=redis
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/tls.sh"

cmd_build() { packages redis-server=redis-server openssl=openssl; }

# serve: starts the server as $STATE/redis.conf says, waits until it serves.
serve() {
    : >"$LOGS/server.log"
    start server redis-server "$STATE/redis.conf"
    WAIT_ON=server wait_for 10 Redis grep -q 'Ready to accept connections' "$LOGS/server.log"
}

cmd_up() {
    local kind=${1:-plain} port
    [[ $kind == plain || $kind == secure ]] || usage
    cmd_build
    new_state
    mkdir "$STATE/data"
    free_ports 1
    port=${PORTS[0]}
    {
        printf '%s\n' 'bind 127.0.0.1' 'daemonize no' "dir $STATE/data" 'appendonly yes' 'save ""' 'maxmemory-policy noeviction'
        if [[ $kind == plain ]]; then
            echo "port $port"
        else
            certificates "$STATE/tls"
            printf '%s\n' 'port 0' "tls-port $port" 'tls-auth-clients no' "tls-ca-cert-file $STATE/tls/ca.crt" \
                "tls-cert-file $STATE/tls/server.crt" "tls-key-file $STATE/tls/server.key" \
                'user default off' 'user app on >app-secret ~* &* +@all -@dangerous +info'
        fi
    } >"$STATE/redis.conf"
    serve
    echo "127.0.0.1:$port"
}

(($#)) || usage
case $1 in
build | up | kill | start | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
