# shellcheck shell=bash
# The Go toolchain: the machine's when it is new enough, else one of our own.

GO_NEEDED=1.26
GO_VERSION=1.26.8

# go_suits GO
go_suits() {
    local version
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [[ $(printf '%s\n' "$GO_NEEDED" "${version#go}" | sort -V | head -n 1) == "$GO_NEEDED" ]]
}

# find_go: sets GO, after installing it if need be.
find_go() {
    local own=$GROUND_CACHE/go-$GO_VERSION/bin/go candidate
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$own"; do
        [[ -z $candidate ]] || ! go_suits "$candidate" || {
            GO=$candidate
            export GOTOOLCHAIN=local
            return
        }
    done
    packages go=golang-go
    once "${own%/bin/go}" fetch_go
    GO=$own
    export GOTOOLCHAIN=local
    go_suits "$GO" || die "Go $GO_NEEDED or newer is needed: see https://go.dev/dl"
}

# fetch_go FOLDER: the module that Go itself switches toolchains with, its sum checked by Go.
fetch_go() {
    local system mod
    system=$(go env GOOS)-$(go env GOARCH)
    mod=$1/mod
    say "fetching Go $GO_VERSION"
    (cd "$1" && GOFLAGS=-modcacherw GOTOOLCHAIN=local GOMODCACHE=$mod \
        go mod download "golang.org/toolchain@v0.0.1-go$GO_VERSION.$system") ||
        die "could not fetch Go: install $GO_NEEDED or newer, see https://go.dev/dl"
    mv "$mod/golang.org/toolchain@v0.0.1-go$GO_VERSION.$system"/* "$1"
    chmod -R u+w "$mod"
    rm -rf "$mod"
    # Modules carry no modes.
    chmod +x "$1"/bin/* "$1"/pkg/tool/*/*
}
