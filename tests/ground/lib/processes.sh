# shellcheck shell=bash
# State folders, processes, free ports and waits, for every script of tests/ground.
# A script sets PART (its name in messages and its folder in the state), SELF (its path) and HERE
# (the folder of tests/ground) before it sources this.

: "${GROUND_CACHE:=$HOME/.cache/messaging/ground}" # what was built and fetched; kept
: "${GROUND_STATE:=}"                              # what runs now; a fresh temporary folder when not set
: "${GROUND_OWNER:=}"                              # id of the process at whose end all of it ends

say() { printf '%s: %s\n' "$PART" "$*" >&2; }
die() {
    say "$*"
    exit 1
}
usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[[ $(uname -s) == Linux ]] || die 'runs on Linux only (a virtual machine or a container will do)'

# use_state: sets STATE (this part's folder) and what lies in it.
use_state() {
    STATE=$GROUND_STATE/$PART
    PIDS=$STATE/pid
    LOGS=$STATE/log
}

# new_state: the state of what comes up now; with GROUND_OWNER, its guard.
new_state() {
    [[ -n $GROUND_STATE ]] || GROUND_STATE=$(mktemp -d "${TMPDIR:-/tmp}/ground.XXXXXX")
    mkdir -p "$GROUND_STATE"
    GROUND_STATE=$(readlink -f "$GROUND_STATE")
    export GROUND_STATE
    use_state
    mkdir "$STATE" 2>/dev/null || die "$STATE is in use; end it first: GROUND_STATE=$GROUND_STATE $SELF down"
    mkdir -p "$PIDS" "$LOGS"
    guard
    say "state: $STATE"
}

# old_state: the state of what is up.
old_state() {
    [[ -n $GROUND_STATE ]] || die 'GROUND_STATE is not set: which one?'
    use_state
    [[ -d $PIDS || -d $STATE/ended ]] || die "$STATE: nothing is up there"
}

# end_all NAME...: at once. From here on nothing starts in this state.
end_all() {
    [[ ! -d $PIDS ]] || mv "$PIDS" "$STATE/ended"
    PIDS=$STATE/ended
    stop 0 "$@" guard
}

# remove_state: after all in it has ended.
remove_state() {
    rm -rf "$STATE"
    rmdir --ignore-fail-on-non-empty "$GROUND_STATE"
}

# The start time tells a process from a later one with the same id. Prints nothing for a process
# that is gone, or a zombie of which no thread is left (until then it holds its ports and files).
started_at() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    # Fields are counted after the command's name, which may hold spaces.
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] || ${stat[17]} -gt 1 ]] && printf '%s' "${stat[19]}"
}

# alive NAME
alive() {
    local pid since
    [[ -f $PIDS/$1 ]] || return 1
    read -r pid since <"$PIDS/$1"
    [[ -n $since && $(started_at "$pid") == "$since" ]]
}

# start NAME COMMAND...: in a session of its own, logging to $LOGS/NAME.log. It notes its own id, so
# that nothing runs unknown when this script is killed here; it ends when it cannot.
start() {
    local name=$1
    shift
    rm -f "$PIDS/$name"
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid bash -c '{ stat=$(<"/proc/$$/stat"); } && read -ra stat <<<"${stat##*) }" &&
        echo "$$ ${stat[19]}" >"$0" && exec "$@"' "$PIDS/$name" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
    until [[ -s $PIDS/$name ]]; do sleep 0.01; done
}

# signal SIGNAL NAME
signal() {
    local pid _
    alive "$2" || return 0
    read -r pid _ <"$PIDS/$2"
    kill "-$1" "$pid" 2>/dev/null || true
}

# stop SECONDS NAME...: asks, then ends what is left after SECONDS (0: at once).
stop() {
    local deadline=$((SECONDS + $1)) name
    shift
    if ((deadline > SECONDS)); then
        for name; do signal TERM "$name"; done
        for name; do
            while ((SECONDS < deadline)) && alive "$name"; do sleep 0.05; done
        done
    fi
    for name; do signal KILL "$name"; done
    for name; do
        while alive "$name"; do sleep 0.02; done
        rm -f "$PIDS/$name"
    done
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds. With WAIT_ON set to a process's
# name, its end ends the wait.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [[ -z ${WAIT_ON:-} ]] || alive "$WAIT_ON" || {
            tail -n 20 "$LOGS/$WAIT_ON.log" >&2
            die "$what: $WAIT_ON ended; see $LOGS"
        }
        ((SECONDS < deadline)) || die "$what: not there in time${LOGS:+; see $LOGS}"
        sleep 0.05
    done
}

accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Guards a state: when its owner is gone, however it went, ends all that is in the state. It
# starts before anything else does, and ends the script that is still starting things.
guard() {
    [[ -n $GROUND_OWNER ]] || return 0
    local since
    since=$(started_at "$GROUND_OWNER") || {
        remove_state
        die "GROUND_OWNER: there is no process $GROUND_OWNER"
    }
    start guard bash "$HERE/lib/guard.sh" "$GROUND_OWNER" "$since" "$$" "$(started_at $$)" "$SELF" "$STATE"
}

# free_ports COUNT: sets PORTS to ports of 127.0.0.1 on which nobody listens. They lie below those
# that the kernel hands out, and are reserved for two minutes against others who ask here.
free_ports() {
    local reserved=${TMPDIR:-/tmp}/ground-ports-$UID taken port tries=0
    mkdir -p "$reserved"
    find "$reserved" -mindepth 1 -maxdepth 1 -mmin +2 -exec rmdir {} + 2>/dev/null || true
    # State 0A is listening; the port is the hexadecimal number after the local address.
    taken=" $(awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null | tr '\n' ' ')"
    PORTS=()
    while ((${#PORTS[@]} < $1)); do
        ((++tries < 1000)) || die 'no free port'
        port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
        [[ $taken != *" $(printf %04X "$port") "* ]] || continue
        mkdir "$reserved/$port" 2>/dev/null || continue
        PORTS+=("$port")
    done
}

# digest FILE...: what a folder of built things is named by.
digest() { cat "$@" | sha256sum | cut -c1-12; }

# once FOLDER COMMAND...: runs COMMAND with the path of an empty folder, which becomes FOLDER when
# it succeeds. Does nothing when FOLDER is there; others who ask meanwhile wait.
once() (
    folder=$1
    shift
    [[ ! -d $folder ]] || exit 0
    mkdir -p "${folder%/*}"
    exec {lock}>"$folder.lock"
    flock "$lock"
    [[ ! -d $folder ]] || exit 0
    # What a killed one left.
    rm -rf "$folder".??????
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Not as a condition, which would switch off `set -e` inside the command.
    "$@" "$work"
    mv -T "$work" "$folder"
)

# packages COMMAND=PACKAGE...: installs the Debian package of each COMMAND that is missing, or names it.
packages() {
    local pair missing=() as_root=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "install with your package manager: ${missing[*]}"
    if ((EUID)); then
        command -v sudo >/dev/null || die "as root, run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    (
        # Scripts that start together must not fight over the package manager.
        exec {lock}>"${TMPDIR:-/tmp}/ground-packages-$UID.lock"
        flock "$lock"
        "${as_root[@]}" apt-get -qq update
        # RUNLEVEL: packaged servers would start by themselves.
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -y \
            -o DPkg::Lock::Timeout=300 --no-install-recommends install "${missing[@]}" >/dev/null
    ) || die "could not install ${missing[*]}: see above, then run: apt-get install ${missing[*]}"
}

# What every part with one process, its "server", is told the same way; its script says how it is served.
cmd_kill() {
    old_state
    stop 0 server
}

cmd_start() {
    old_state
    ! alive server || die 'it is up'
    serve
}

cmd_down() {
    old_state
    end_all server
    remove_state
}
