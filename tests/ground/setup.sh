#!/bin/sh
# Installs what the platform needs on this machine, or names it: a C and C++ compiler, make, OpenSSL, a redis-server.
# Rust itself comes from rustup, which reads rust-toolchain.toml. Changes nothing when all is there.
set -eu

fail() {
    echo "setup: $*" >&2
    exit 1
}

command -v cargo >/dev/null 2>&1 ||
    fail "cargo is missing: install Rust with rustup, see https://rustup.rs"

# has TOOL: is it here?
has() {
    case "$(uname -s) $1" in
    "Darwin pkg-config" | "Darwin libssl-dev") true ;; # comes with Homebrew's redis
    *libssl-dev) pkg-config --exists openssl 2>/dev/null ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=""
for tool in cc c++ make pkg-config libssl-dev redis-server; do
    has "$tool" || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0
echo "setup: missing here:$missing"

case "$(uname -s)" in
Darwin)
    case "$missing" in
    *" cc"* | *" c++"* | *" make"*) fail "install the command line tools: xcode-select --install" ;;
    esac
    command -v brew >/dev/null 2>&1 || fail "install Homebrew, then: brew install redis"
    brew install redis
    ;;
Linux)
    packages=""
    for tool in $missing; do
        case "$tool" in
        cc) packages="$packages gcc libc6-dev" ;;
        c++) packages="$packages g++" ;;
        *) packages="$packages $tool" ;;
        esac
    done
    command -v apt-get >/dev/null 2>&1 || fail "install with your package manager:$packages"
    if [ "$(id -u)" = 0 ]; then
        as_root=""
    elif command -v sudo >/dev/null 2>&1; then
        as_root="sudo"
    else
        fail "as root, run: apt-get install$packages"
    fi
    # The packaged server starts on its own and takes its port; here a child of each process serves.
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    ;;
*) fail "install with your package manager:$missing" ;;
esac

for tool in $missing; do
    has "$tool" || fail "$tool is still missing"
done
echo "setup: installed:$missing"
