#!/usr/bin/env bash
# Apache Kafka in KRaft mode on 127.0.0.1, one or three nodes that are broker and controller.
#   kafka.sh build              fetches the broker, once; up does it too
#   kafka.sh lib                prints the folder of its jars
#   kafka.sh up [1|3] [--scram] [--tls]
#                               the last line printed is the bootstrap servers, HOST:PORT[,HOST:PORT…];
#                               with --scram the line before it is those of the SASL_PLAINTEXT listener
#                               (SCRAM-SHA-512, user app, password app-secret); with --tls the first line is
#                               those of the SSL listener, which asks for a certificate: GROUND_STATE/kafka/tls
#                               has ca.crt, client.crt and client.key
#   kafka.sh stop N             ends node N in good order
#   kafka.sh kill N             ends node N at once, as a crash would
#   kafka.sh start N            starts node N again, with its data and ports; returns when it serves
#   kafka.sh down               ends all, deletes the data
# Several run side by side: ports are free ones, the state is GROUND_STATE/kafka (a fresh temporary
# folder when GROUND_STATE is not set). With GROUND_OWNER=PID all ends when that process does.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

PART=kafka
SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
source "$HERE/lib/processes.sh"
source "$HERE/lib/jars.sh"
source "$HERE/lib/tls.sh"

VERSION=4.1.1
JARS=(
    "org.apache.kafka:kafka_2.13:$VERSION" "org.apache.kafka:kafka-tools:$VERSION"
    org.apache.logging.log4j:log4j-slf4j-impl:2.25.1 org.apache.logging.log4j:log4j-core:2.25.1
)
LIB=$GROUND_CACHE/kafka-$VERSION-$(digest "$SELF" "$HERE/lib/jars.sh")
CLUSTER=Z3JvdW5kLWthZmthLTAwMQ
PASSWORD=app-secret
: "${KAFKA_HEAP:=384m}"

cmd_build() {
    packages_java
    packages openssl=openssl
    once "$LIB" make_lib
}

cmd_lib() { echo "$LIB"; }

make_lib() {
    say "fetching Kafka $VERSION"
    fetch_jars "$1" "${JARS[@]}"
    cat >"$1/log4j2.properties" <<'PROPERTIES'
status=error
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %m (%c)%n
rootLogger.level=info
rootLogger.appenderRef.c.ref=c
PROPERTIES
    # A formatted folder to copy, which is faster than to format each node's.
    cat >"$1/format.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
log.dirs=$1/formatted
PROPERTIES
    java -Xmx128m -cp "$1/*" kafka.tools.StorageTool format -t "$CLUSTER" -c "$1/format.properties" \
        --add-scram "SCRAM-SHA-512=[name=app,password=$PASSWORD]" >&2
}

# configure NODE COUNT: ports are in PORTS, three a node, then one a node for TLS.
configure() {
    local node=$1 count=$2 dir=$STATE/$1 replicas=1 isr=1 voters='' i at=$((($1 - 1) * 3))
    ((count == 1)) || replicas=3 isr=2
    for ((i = 1; i <= count; i++)); do voters+=${voters:+,}$i@127.0.0.1:${PORTS[i * 3 - 1]}; done
    mkdir -p "$dir/data"
    cp "$LIB/formatted/bootstrap.checkpoint" "$dir/data"
    printf '%s\n' version=1 "cluster.id=$CLUSTER" "node.id=$node" \
        "directory.id=$(head -c 16 /dev/urandom | basenc --base64url | tr -d =)" >"$dir/data/meta.properties"
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
listeners=PLAINTEXT://127.0.0.1:${PORTS[at]},SASL_PLAINTEXT://127.0.0.1:${PORTS[at + 1]},CONTROLLER://127.0.0.1:${PORTS[at + 2]}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=$dir/data
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$isr
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$isr
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$isr
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
log.cleaner.dedupe.buffer.size=16777216
controlled.shutdown.max.retries=1
PROPERTIES
    [[ -d $STATE/tls ]] || return 0
    sed -i "s,^listeners=.*,&\,SSL://127.0.0.1:${PORTS[count * 3 + node - 1]}," "$dir/server.properties"
    cat >>"$dir/server.properties" <<PROPERTIES
ssl.keystore.type=PEM
ssl.keystore.location=$STATE/tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$STATE/tls/ca.crt
ssl.client.auth=required
PROPERTIES
}

start_node() {
    : >"$LOGS/node-$1.log"
    start "node-$1" java -XX:-UsePerfData -Xms64m "-Xmx$KAFKA_HEAP" -XX:+UseSerialGC \
        "-Dlog4j2.configurationFile=$LIB/log4j2.properties" -cp "$LIB/*" kafka.Kafka "$STATE/$1/server.properties"
}

wait_node() {
    WAIT_ON=node-$1 wait_for 90 "node $1" grep -q 'Kafka Server started' "$LOGS/node-$1.log"
}

# servers PORT…: of all nodes.
servers() {
    local port list=''
    for port; do list+=${list:+,}127.0.0.1:$port; done
    echo "$list"
}

cmd_up() {
    local count=1 scram='' tls='' node nodes plain=() sasl=()
    while (($#)); do
        case $1 in
        1 | 3) count=$1 ;;
        --scram) scram=yes ;;
        --tls) tls=yes ;;
        *) usage ;;
        esac
        shift
    done
    cmd_build
    new_state
    free_ports $((count * 4))
    if [[ -n $tls ]]; then
        certificates "$STATE/tls"
        cat "$STATE/tls/server.key" "$STATE/tls/server.crt" >"$STATE/tls/server.pem"
    fi
    mapfile -t nodes < <(seq "$count")
    for node in "${nodes[@]}"; do configure "$node" "$count"; done
    for node in "${nodes[@]}"; do start_node "$node"; done
    for node in "${nodes[@]}"; do wait_node "$node"; done
    for node in "${nodes[@]}"; do plain+=("${PORTS[node * 3 - 3]}") sasl+=("${PORTS[node * 3 - 2]}"); done
    [[ -z $tls ]] || servers "${PORTS[@]:count * 3}"
    [[ -z $scram ]] || servers "${sasl[@]}"
    servers "${plain[@]}"
}

a_node() {
    old_state
    [[ -f $STATE/${1:-}/server.properties ]] || die "there is no node '${1:-}'"
}

cmd_stop() {
    a_node "$@"
    # The last nodes of a quorum cannot finish: they get their time, then end.
    stop 10 "node-$1"
}

cmd_kill() {
    a_node "$@"
    stop 0 "node-$1"
}

cmd_start() {
    a_node "$@"
    ! alive "node-$1" || die "node $1 is up"
    start_node "$1"
    wait_node "$1"
}

cmd_down() {
    old_state
    end_all node-1 node-2 node-3
    remove_state
}

(($#)) || usage
case $1 in
build | lib | up | stop | kill | start | down) "cmd_$1" "${@:2}" ;;
*) usage ;;
esac
