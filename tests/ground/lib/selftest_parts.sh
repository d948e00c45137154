# shellcheck shell=bash
# The parts of selftest.sh. A check is a function; it fails at its first failing step.

# at NAME SCRIPT ARGUMENT...: runs SCRIPT with the state NAME.
at() { GROUND_STATE=$SCRATCH/$1 "$HERE/$2" "${@:3}"; }

# up NAME SCRIPT ARGUMENT...: the last line that `SCRIPT up` prints is kept for `where NAME`.
up() { at "$1" "$2" up "${@:3}" | tail -n 1 >"$SCRATCH/$1.where"; }
where() { cat "$SCRATCH/$1.where"; }
port() { sed 's/.*://' "$SCRATCH/$1.where"; }

answers() { accepts "$(port "$1")"; }
silent() {
    ! answers "$1" || {
        echo "port $(port "$1") still answers"
        return 1
    }
}
gone() {
    [[ ! -e $SCRATCH/$1 ]] || {
        find "$SCRATCH/$1"
        return 1
    }
}

# --- guard

# An owner that is killed takes all with it, even while it is being started.
ends_with_owner() { # SCRIPT SECONDS
    local owner state=$SCRATCH/owned
    sleep 600 &
    owner=$!
    GROUND_STATE=$state GROUND_OWNER=$owner "$HERE/$1" up >/dev/null 2>&1 &
    sleep "$2"
    kill -KILL "$owner"
    wait || true
    wait_for 10 "end of $1" gone owned
    # Nothing runs on with the state's path in its arguments or its environment.
    local dir
    for dir in /proc/[0-9]*; do
        [[ ${dir#/proc/} != "$$" && ${dir#/proc/} != "$BASHPID" ]] || continue
        if tr '\0' '\n' 2>/dev/null <"$dir/environ" | grep -x "GROUND_STATE=$state"; then
            echo "${dir#/proc/} still runs: $(tr '\0' ' ' <"$dir/cmdline")"
            return 1
        fi
    done
}
no_such_owner() { GROUND_OWNER=999999999 "$HERE/redis.sh" up; }

part_guard() {
    local after
    "$HERE/kafka.sh" build
    "$HERE/control_plane.sh" build
    for after in 0.05 0.2 0.5 1 3; do
        check "Kafka ends with its owner, killed after $after s" ends_with_owner kafka.sh "$after"
    done
    check 'the control plane ends with its owner, killed after 1 s' ends_with_owner control_plane.sh 1
    check 'Redis ends with its owner, killed after 1 s' ends_with_owner redis.sh 1
    check 'an owner that is not there is refused' refused 'there is no process' no_such_owner
}

# --- control plane

control_planes_side_by_side() {
    up cp1 control_plane.sh --controllers --scheduler &
    up cp2 control_plane.sh
    wait $!
    [[ $(where cp1) != "$(where cp2)" ]]
    kubectl cp1 create namespace only-here
    refused NotFound kubectl cp2 get namespace only-here
}
kubectl() { at "$1" control_plane.sh kubectl "${@:2}"; }
state_in_use() { up cp1 control_plane.sh; }
anonymous() { curl -sS -k -o /dev/null -w '%{http_code}' "$(kubectl cp1 config view -o jsonpath='{.clusters[0].cluster.server}')/api/v1/secrets"; }
is_forbidden() { [[ $(anonymous) == 401 || $(anonymous) == 403 ]]; }
other_ca() { curl -sS "$(kubectl cp1 config view -o jsonpath='{.clusters[0].cluster.server}')/readyz"; }
without_rights() { kubectl cp1 get secrets --as system:serviceaccount:default:default; }
with_rights() {
    kubectl cp1 create role reader --verb=list --resource=secrets
    kubectl cp1 create rolebinding reader --role=reader --serviceaccount=default:default
    kubectl cp1 get secrets --as system:serviceaccount:default:default
}
restricted() {
    kubectl cp1 create namespace strict
    kubectl cp1 label namespace strict pod-security.kubernetes.io/enforce=restricted
    wait_for 10 'service account' kubectl cp1 -n strict get serviceaccount default
}
privileged() { kubectl cp1 -n strict run bad --image=a:1 --privileged; }
crd_with_rules() {
    kubectl cp1 apply -f "$HERE/manifests/crd.yaml"
    kubectl cp1 wait crd/widgets.selftest.ground --for=condition=Established --timeout=10s
}
widget_against_rules() {
    kubectl cp1 create -f - <<YAML
apiVersion: selftest.ground/v1
kind: Widget
metadata: {name: w}
spec: {min: 3, max: 2}
YAML
}
controllers_and_scheduler_act() {
    kubectl cp1 create -f - <<YAML
apiVersion: v1
kind: Node
metadata: {name: paper}
spec: {taints: []}
YAML
    kubectl cp1 patch node paper --subresource=status --type=merge \
        -p '{"status":{"capacity":{"cpu":"4","memory":"8Gi","pods":"10"},"conditions":[{"type":"Ready","status":"True"}]}}'
    kubectl cp1 create deployment paper --image=a:1
    wait_for 20 'a scheduled pod' on_paper
}
on_paper() { [[ $(kubectl cp1 get pods -l app=paper -o jsonpath='{.items[*].spec.nodeName}') == paper ]]; }
end_of() { # NAME SCRIPT
    at "$1" "$2" down
    gone "$1"
    silent "$1"
}
end_of_control_planes() {
    at cp1 control_plane.sh down
    at cp2 control_plane.sh down
    gone cp1
    gone cp2
}

part_control_plane() {
    "$HERE/control_plane.sh" build
    check 'two start side by side and know nothing of each other' control_planes_side_by_side
    check 'a state in use is refused' refused 'is in use' state_in_use
    check 'nobody without a certificate gets in' is_forbidden
    check 'its certificate is its own' refused certificate other_ca
    check 'RBAC refuses a service account' refused Forbidden without_rights
    check 'RBAC lets it in when it may' with_rights
    check 'a namespace is made restricted' restricted
    check 'Pod Security refuses a privileged pod' refused 'violates PodSecurity' privileged
    check 'a CRD with rules is taken' crd_with_rules
    check 'a rule refuses an object' refused 'min must not exceed max' widget_against_rules
    check 'controllers make a pod, the scheduler places it' controllers_and_scheduler_act
    check 'down leaves nothing' end_of_control_planes
}

# --- Kafka

tool() { java -XX:TieredStopAtLevel=1 -cp "$("$HERE/kafka.sh" lib)/*" "$@" 2>&1; }
topic() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$(where kafka)" --topic t "$@"; }
creates_topic() { topic --create --partitions 3 --replication-factor 3; }
produces() {
    seq "$1" "$2" | tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$(where kafka)" --topic t \
        --request-required-acks all
}
consumes() {
    local seen
    seen=$(tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$(where kafka)" --topic t \
        --from-beginning --max-messages "$1" --timeout-ms 30000 | grep -c '^[0-9]*$')
    echo "$seen of $1"
    ((seen == $1))
}
kafka_scram() {
    GROUND_STATE=$SCRATCH/scram "$HERE/kafka.sh" up --scram >"$SCRATCH/scram.where"
    printf '%s\n' security.protocol=SASL_PLAINTEXT sasl.mechanism=SCRAM-SHA-512 \
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"app\" password=\"$1\";" \
        >"$SCRATCH/client.properties"
    timeout 30 java -cp "$("$HERE/kafka.sh" lib)/*" org.apache.kafka.tools.TopicCommand --list \
        --bootstrap-server "$(head -n 1 "$SCRATCH/scram.where")" --command-config "$SCRATCH/client.properties" 2>&1
}
end_scram() { at scram kafka.sh down; }

part_kafka() {
    "$HERE/kafka.sh" build
    check 'three nodes start' up kafka kafka.sh 3
    check 'a topic is made' creates_topic
    check 'messages are taken' produces 1 100
    check 'a node is killed' at kafka kafka.sh kill 2
    check 'messages are taken without it' produces 101 200
    check 'it starts again' at kafka kafka.sh start 2
    check 'another is stopped' at kafka kafka.sh stop 1
    check 'everything is there' consumes 200
    check 'down leaves nothing' end_of kafka kafka.sh
    check 'SCRAM lets its user in' kafka_scram app-secret
    check 'SCRAM listener ends' end_scram
    check 'SCRAM refuses a wrong password' refused 'Authentication failed' kafka_scram wrong
    check 'SCRAM listener ends again' end_scram
}

# --- DynamoDB Local

dynamodb() { # OPERATION BODY
    curl -sS --max-time 10 "http://$(where dynamodb)/" -d "$2" -H "X-Amz-Target: DynamoDB_20120810.$1" \
        -H 'Content-Type: application/x-amz-json-1.0' \
        -H 'Authorization: AWS4-HMAC-SHA256 Credential=a/20200101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0'
}
makes_table() {
    dynamodb CreateTable '{"TableName": "kept", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}], "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}]}'
    has_table
}
has_table() { [[ $(dynamodb ListTables '{}') == *'"kept"'* ]]; }
listens_on_loopback_only() {
    local addresses
    addresses=$(ss -Hltn "sport = :$(port "$1")" | awk '{ print $4 }')
    echo "$addresses"
    [[ -n $addresses ]]
    ! grep -v -e '^127\.0\.0\.1:' -e '^\[::ffff:127\.0\.0\.1\]:' <<<"$addresses" || return 1
}

part_dynamodb() {
    packages curl=curl ss=iproute2
    "$HERE/dynamodb-local.sh" build
    check 'it starts' up dynamodb dynamodb-local.sh disk
    check 'only this machine reaches it' listens_on_loopback_only dynamodb
    check 'a table is made' makes_table
    check 'it is killed' at dynamodb dynamodb-local.sh kill
    check 'it starts again' at dynamodb dynamodb-local.sh start
    check 'the table is there' has_table
    check 'down leaves nothing' end_of dynamodb dynamodb-local.sh
}

# --- Redis

redis() { redis-cli -h 127.0.0.1 -p "$(port redis)" "$@"; }
sets() { [[ $(redis set k v) == OK ]]; }
has() { [[ $(redis get k) == v ]]; }
secure() { redis-cli -h localhost -p "$(port secure)" --tls --cacert "$SCRATCH/secure/redis/tls/ca.crt" --no-auth-warning "$@" 2>&1; }
knows_user() { [[ $(secure --user app --pass app-secret ping) == PONG ]]; }
nobody() { [[ $(secure ping) == PONG ]] || { secure ping; return 1; }; }
plain_text() { [[ $(timeout 5 redis-cli -h 127.0.0.1 -p "$(port secure)" ping 2>&1) == PONG ]]; }

part_redis() {
    packages redis-cli=redis-tools
    check 'it starts' up redis redis.sh
    check 'it keeps a value' sets
    check 'it is killed' at redis redis.sh kill
    check 'it starts again' at redis redis.sh start
    check 'the value is there' has
    check 'down leaves nothing' end_of redis redis.sh
    check 'it starts with TLS and users' up secure redis.sh secure
    check 'it knows its user' knows_user
    check 'it refuses others' refused NOAUTH nobody
    check 'it refuses plain text' refused '' plain_text
    check 'down leaves nothing again' end_of secure redis.sh
}

# --- images

# The archive that images.sh made of a binary that is at hand.
makes_image() {
    mkdir -p "$SCRATCH/bin/debug"
    cp "$(command -v bash)" "$SCRATCH/bin/debug/$1"
    IMAGES=$SCRATCH/images IMAGE_PROFILE=dev IMAGE_TARGET_DIR=$SCRATCH/bin IMAGE_VERSION=9 "$HERE/images.sh" pack "$1"
}
same_bytes() {
    local first
    first=$(sha256sum <"$SCRATCH/images/thing.tar")
    touch "$SCRATCH/bin/debug/thing"
    makes_image thing
    [[ $first == "$(sha256sum <"$SCRATCH/images/thing.tar")" ]]
}
opens_image() {
    mkdir -p "$SCRATCH/image" "$SCRATCH/root"
    tar -x -C "$SCRATCH/image" -f "$SCRATCH/images/thing.tar"
    local blob
    for blob in "$SCRATCH"/image/blobs/sha256/*; do
        [[ $(sha256sum <"$blob") == "${blob##*/}"* ]]
    done
    tar -x -C "$SCRATCH/root" -f "$SCRATCH/image/$(grep -o '"Layers":\["[^"]*' "$SCRATCH/image/manifest.json" | sed 's/.*"//')"
    grep -F '"messaging.dev/thing:9"' "$SCRATCH/image/manifest.json"
    grep -F '"io.containerd.image.name":"messaging.dev/thing:9"' "$SCRATCH/image/index.json"
    grep -F '"User":"65534:65534"' "$SCRATCH"/image/blobs/sha256/* | grep -F '"Entrypoint":["/thing"]'
    [[ -x $SCRATCH/root/thing && -s $SCRATCH/root/etc/ssl/certs/ca-certificates.crt ]]
}
dynamic_for_release() {
    mkdir -p "$SCRATCH/static/$(uname -m)-unknown-linux-gnu/release"
    cp "$(command -v bash)" "$SCRATCH/static/$(uname -m)-unknown-linux-gnu/release/thing"
    IMAGES=$SCRATCH/images IMAGE_PROFILE=release IMAGE_TARGET_DIR=$SCRATCH/static "$HERE/images.sh" pack thing
}

part_images() {
    check 'an image is packed' makes_image thing
    check 'the same binary makes the same bytes' same_bytes
    check 'digests, names, user, entrypoint and certificates are right' opens_image
    check 'a release that is not static is refused' refused 'is not static' dynamic_for_release
}

# --- Tiltfile

tiltfile_tool() {
    find_go
    (cd "$HERE/tiltfile" && CGO_ENABLED=0 GOFLAGS=-mod=readonly "$GO" build -buildvcs=false -o "$SCRATCH/tiltfile" .)
}
tiltfile() { "$SCRATCH/tiltfile" "$1"; }
broken_tiltfile() {
    mkdir -p "$SCRATCH/broken"
    printf '%s\n' "$1" >"$SCRATCH/broken/Tiltfile"
    tiltfile "$SCRATCH/broken"
}

part_tiltfile() {
    check 'the tool that evaluates it is built' tiltfile_tool
    check 'the Tiltfile asks for what is there' tiltfile "$ROOT"
    check 'an argument unknown to Tilt is found' refused 'unexpected keyword argument' \
        broken_tiltfile 'local_resource("a", command="true")'
    check 'a resource nobody defines is found' refused 'which nobody defines' \
        broken_tiltfile 'local_resource("a", cmd="true", resource_deps=["b"])'
    check 'a missing path is found' refused 'which is not there' broken_tiltfile 'local_resource("a", cmd="true", deps=["x"])'
    check 'a missing program is found' refused 'which is no program' broken_tiltfile 'local_resource("a", cmd="./x")'
}

# --- Kind

kind_tool() { "$HERE/local.sh" kind version; }
# Kind reads the file before it looks for Docker: one that is not there shows that it liked what it read.
kind_reads() { DOCKER_HOST=unix://$SCRATCH/none.sock "$HERE/local.sh" kind create cluster --name selftest --config "$1"; }
kind_refuses_other() {
    sed 's/^nodes:/knots:/' "$ROOT/kind-config.yaml" >"$SCRATCH/kind.yaml"
    kind_reads "$SCRATCH/kind.yaml"
}
three_nodes() {
    [[ $(grep -c -- '- role: control-plane' "$ROOT/kind-config.yaml") == 1 ]]
    [[ $(grep -c -- '- role: worker' "$ROOT/kind-config.yaml") == 2 ]]
}

part_kind() {
    packages docker=docker.io
    check 'kind is there' kind_tool
    check 'kind reads kind-config.yaml' refused 'none.sock' kind_reads "$ROOT/kind-config.yaml"
    check 'kind would refuse another' refused 'knots' kind_refuses_other
    check 'one control plane, two workers' three_nodes
}

# --- cluster

cluster() { GROUND_STATE=$SCRATCH/cluster "$HERE/cluster.sh" "$@"; }
backends() { GROUND_STATE=$SCRATCH/cluster "$HERE/backends.sh" "$@"; }
cluster_is_gone() {
    cluster down
    [[ ! -e /run/ground ]]
    ! ip link show ground0 || return 1
    ! grep "$SCRATCH" /proc/self/mounts || return 1
}

part_cluster() {
    cluster build
    check 'two nodes start' cluster up
    cluster selftest || FAILED=$((FAILED + 1))
    check 'Kafka, DynamoDB Local, Redis and the S3 server start as pods' backends up selftest-backends
    check 'they end' backends down selftest-backends
    check 'down leaves nothing' cluster_is_gone
}
