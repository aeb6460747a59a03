#!/bin/bash
# Runs Azure's SDKs for Python, Go and Node against the emulator, and names the operations that pass.
#
#   tests/sdks/run.sh [python] [go] [node]
#
# Each is installed in the version that its folder pins, from its package registry, below target/.
# One whose tools or packages are not there is skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/sdks
mkdir -p "$work"

cargo build --quiet --manifest-path "$root/Cargo.toml" --all-features --bin azmutex
azmutex=${CARGO_TARGET_DIR:-$root/target}/debug/azmutex

# The SDKs send bearer tokens over TLS alone: tls.py stands before the emulator.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null

# A command that ends when its standard input does: it is held open by this shell's descriptor.
mkfifo "$work/open.$$"
exec 3<>"$work/open.$$"
rm "$work/open.$$"
started=()
stop() {
    exec 3>&-
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
}
trap stop EXIT

rm -f "$work/serving" "$work/port"
"$azmutex" emulator --bearer good-token --json <&3 >"$work/serving" 2>/dev/null &
started+=($!)
until grep -qs '}$' "$work/serving"; do sleep 0.1; done
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/serving"; }
export SDKS_CONNECTION=$(field connection_string)
export SDKS_ENDPOINT=$(field endpoint)
python3 "$here/tls.py" "$SDKS_ENDPOINT" "$work/cert.pem" "$work/key.pem" >"$work/port" &
started+=($!)
until [ -s "$work/port" ]; do sleep 0.1; done
export SDKS_HTTPS_ENDPOINT="https://localhost:$(cat "$work/port")/devstoreaccount1"
export SDKS_CERTIFICATE=$work/cert.pem

install_python() {
    [ -x "$work/python/bin/python" ] || python3 -m venv "$work/python"
    "$work/python/bin/pip" install --quiet --requirement "$here/python/requirements.txt"
}
run_python() { "$work/python/bin/python" "$here/python/check.py"; }
install_go() { (cd "$here/go" && go build -o "$work/go-check" .); }
run_go() { SSL_CERT_FILE=$work/cert.pem "$work/go-check"; }
install_node() {
    mkdir -p "$work/node"
    cp "$here"/node/{package.json,package-lock.json,check.mjs} "$work/node/"
    npm ci --silent --prefix "$work/node"
}
run_node() { NODE_EXTRA_CA_CERTS=$work/cert.pem node "$work/node/check.mjs"; }

[ $# -gt 0 ] || set -- python go node
passed=0 failed=0
for name in "$@"; do
    echo "== $name"
    if ! "install_$name" >"$work/$name.log" 2>&1; then
        echo "skipped: cannot install it, see $work/$name.log"
    elif "run_$name"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
