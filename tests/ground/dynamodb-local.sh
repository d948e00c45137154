#!/usr/bin/env bash
# DynamoDB Local on 127.0.0.1: any region, any alphanumeric access key.
#   dynamodb-local.sh build             fetches the server, once; up does it too
#   dynamodb-local.sh lib               prints the folder of its jars
#   dynamodb-local.sh up [memory|disk]  where tables live (memory when not said); the last line printed is HOST:PORT
#   dynamodb-local.sh kill              ends it at once, as a crash would
#   dynamodb-local.sh start             starts it again, with its port and what is on disk
#   dynamodb-local.sh down              ends it, deletes the data
# Several run side by side: ports are free ones, the state is GROUND_STATE/dynamodb (a fresh temporary
# folder when GROUND_STATE is not set). With GROUND_OWNER=PID all ends when that process does.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=dynamodb
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/jars.sh"

VERSION=3.1.0 # later ones cannot be resolved
LIB=$GROUND_CACHE/dynamodb-local-$VERSION-$(digest "$SELF" "$HERE/lib/jars.sh")
: "${DYNAMODB_HEAP:=384m}"

cmd_build() {
    packages_java
    once "$LIB" make_lib
}

cmd_lib() { echo "$LIB"; }

make_lib() {
    say "fetching DynamoDB Local $VERSION"
    fetch_jars "$1" "software.amazon.dynamodb:DynamoDBLocal:$VERSION"
    # The server's own main class listens on every interface.
    cat >"$1/Loopback.java" <<'JAVA'
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import software.amazon.dynamodb.services.local.main.ServerRunner;

public final class Loopback {
  public static void main(String[] args) throws Exception {
    var proxy = ServerRunner.createServerFromCommandLineArgs(args);
    var server = proxy.getClass().getDeclaredField("server");
    server.setAccessible(true);
    for (var connector : ((Server) server.get(proxy)).getConnectors()) {
      ((ServerConnector) connector).setHost("127.0.0.1");
    }
    proxy.start();
    proxy.join();
  }
}
JAVA
    javac -d "$1" -cp "$1/*" "$1/Loopback.java"
}

# serve: starts the server as $STATE/port and $STATE/where say, waits until it answers.
serve() {
    local port tables=(-dbPath "$STATE/data")
    port=$(<"$STATE/port")
    [[ $(<"$STATE/where") == disk ]] || tables=(-inMemory)
    start server java -XX:-UsePerfData -Xms64m "-Xmx$DYNAMODB_HEAP" -XX:+UseSerialGC \
        "-Djava.library.path=$LIB" "-Dsqlite4java.library.path=$LIB" -cp "$LIB:$LIB/*" \
        Loopback -port "$port" -sharedDb -disableTelemetry "${tables[@]}"
    WAIT_ON=server wait_for 60 'DynamoDB Local' accepts "$port"
}

cmd_up() {
    local where=${1:-memory}
    [[ $where == memory || $where == disk ]] || usage
    cmd_build
    new_state
    mkdir "$STATE/data"
    free_ports 1
    echo "${PORTS[0]}" >"$STATE/port"
    echo "$where" >"$STATE/where"
    serve
    echo "127.0.0.1:${PORTS[0]}"
}

(($#)) || usage
case $1 in
build | lib | up | kill | start | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
