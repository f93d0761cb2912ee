# Helpers for the scripts beside this file; sourced, never run.
#
#   . "$(dirname "$0")/lib.sh"
#
# Owns the servers it starts: whatever ends the script, they are stopped by pid. Nothing here waits without a deadline.

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
RINGROOM="${CARGO_TARGET_DIR:-$ROOT/target}/release/ringroom"
SCRATCH="$(mktemp -d "${TMPDIR:-/tmp}/ringroom.XXXXXX")"
SERVER_PIDS=()

# One line about what comes next.
step() { printf '\n== %s\n' "$*"; }

# The last words: what is wrong and the fix.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need PROGRAM HOW-TO-GET-IT
need() { command -v "$1" >/dev/null 2>&1 || die "needs $1: $2"; }

# What building takes; the build script of an io_uring library runs git and a C compiler.
need_tools() {
    need cargo "install Rust from https://rustup.rs"
    need git "install the package git"
    need cc "install gcc (Debian: build-essential, Fedora: gcc)"
}

# Builds the release binary, once per script.
build_release() {
    [ -n "${BUILT:-}" ] && return
    need_tools
    (cd "$ROOT" && cargo build --release --locked)
    BUILT=1
}

# A TCP port of 127.0.0.1 that is free now.
free_port() {
    need python3 "install the package python3"
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_server SECONDS [ARGS OF serve ...]: returns when the server is ready; sets SERVER_PID and SERVER_LOG.
start_server() {
    local seconds="$1" ready
    shift
    SERVER_LOG="$SCRATCH/server-${#SERVER_PIDS[@]}.log"
    ${SERVER_PREFIX:-} "$RINGROOM" serve "$@" >"$SERVER_LOG" 2>&1 &
    SERVER_PID=$!
    SERVER_PIDS+=("$SERVER_PID")
    ready=$((SECONDS + seconds))
    until grep -q '^ringroom ready on ' "$SERVER_LOG"; do
        if ! kill -0 "$SERVER_PID" 2>/dev/null; then
            cat "$SERVER_LOG" >&2
            die "the server ended before it was ready"
        fi
        if [ "$SECONDS" -ge "$ready" ]; then
            cat "$SERVER_LOG" >&2
            die "the server was not ready within $seconds s"
        fi
        sleep 0.05
    done
}

# stop_server PID SECONDS: SIGTERM, then SIGKILL at the deadline. Returns the server's exit code.
stop_server() {
    local pid="$1" end=$((SECONDS + $2)) code=0
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$end" ]; then
            printf 'server %s did not stop within %s s: killed\n' "$pid" "$2" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$pid" || code=$?
    return "$code"
}

# What is left when the script ends, however it ends.
clean_up() {
    local code=$? pid
    trap - EXIT
    for pid in "${SERVER_PIDS[@]}"; do
        if kill -0 "$pid" 2>/dev/null; then stop_server "$pid" 5 || true; fi
    done
    rm -rf "$SCRATCH"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
