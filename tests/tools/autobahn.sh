#!/usr/bin/env bash
# Runs the Autobahn WebSocket cases against gateway's own socket loop with its production limits (examples/echo.rs).
# usage: autobahn.sh [GROUP...]      for example `autobahn.sh 6. 7.`; without one, groups 1 to 7 and 10
# Group 9 sends messages above the limit of 64 KB, groups 12 and 13 need compression, which gateway does not offer.
# Needs python3 with venv and lib2to3 (3.12 or older). The suite is fetched from the package index once and kept.
# The results go to target/autobahn/report.json.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/autobahn
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(1. 2. 3. 4. 5. 6. 7. 10.)

# The engine that the suite was written for, and the suite. Both are Python 2.
engine=autobahn-0.10.9
suite=autobahntestsuite-25.10.1

fetch() {
  python3 -c 'import lib2to3' 2>/dev/null || { echo "python3 has no lib2to3: take 3.12 or older" >&2; exit 2; }
  rm -rf "$work" && mkdir -p "$work"
  python3 -m venv "$work/python"
  local pip=("$work/python/bin/pip" --quiet --disable-pip-version-check)
  "${pip[@]}" install 'setuptools<58' twisted zope.interface six txaio pyopenssl service_identity
  "${pip[@]}" download --no-deps --dest "$work/fetched" "${engine/-/==}" "${suite/-/==}"
}

# Makes Python 3 of it: by lib2to3, and by hand where a case counts on what Python 2 did.
convert() {
  cd "$work"
  for file in fetched/*; do
    case $file in
      *.tar.gz) tar -xzf "$file" ;;
      *.whl | *.zip) python3 -m zipfile -e "$file" "$suite" ;;
    esac
  done
  mkdir converted.new
  cp -r "$engine/autobahn" "$suite/autobahntestsuite" converted.new/
  cd converted.new
  python3 -m lib2to3 -w -n --no-diffs autobahntestsuite >/dev/null 2>&1
  : >autobahntestsuite/__init__.py
  local cases=autobahntestsuite/case
  # Classes inherited from `object` first.
  grep -rlE '\(object, *Case' $cases | xargs sed -i -E 's/\(object, *(Case[A-Za-z0-9_]*)[, ]*\)/(\1, )/'
  # Interfaces are declared by a decorator.
  sed -i 's/zope.interface import implements/zope.interface import implementer/; s/^\( *\)implements(.*)/\1pass/' \
    $cases/case9_9_1.py
  # Payloads written as UTF-8 are the bytes that they look like.
  LC_ALL=C sed -i -E 's/^( *PAYLOAD[0-9]* = "[^"\\]*")/\1.encode("utf-8").decode("latin-1")/' $cases/case6_2_*.py
  # Divisions were of whole numbers.
  sed -i 's#len(self.payload) / self.p#len(self.payload) // self.p#' $cases/case10_1_1.py
  sed -i -E 's# / # // #' $cases/case9_*.py $cases/case10_*.py
  cd ..
  mv converted.new converted
}

[ -d "$work/converted" ] || { fetch && (convert); }

cargo build --locked --quiet --manifest-path "$root/Cargo.toml" -p gateway --example echo
# The echo ends when the pipe to its standard input does.
coproc ECHO { exec "$target/debug/examples/echo" 2>"$work/echo.log"; }
trap 'exec {ECHO[1]}>&- 2>/dev/null || true' EXIT
read -r -t 20 url <&"${ECHO[0]}" || { echo "the echo did not start:" >&2; cat "$work/echo.log" >&2; exit 1; }

PYTHONPATH="$work/converted" "$work/python/bin/python" "$here/autobahn/cases.py" "$url" "$work/report.json" "${groups[@]}"
