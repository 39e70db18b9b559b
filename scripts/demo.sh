#!/usr/bin/env bash
# A training job goes through a queue, from nothing: `make demo` and `make demo TARGET=docker`.
#
# Starts a Prefect server, a queue and an agent in a temporary folder, submits examples/train, follows its logs and
# shows the run. The exit code is the run's outcome. Everything that was started is ended, and the folder removed.
#
#   TARGET             process (default) or docker
#   EPOCHS             how long to train (default 40)
#   LAUNCH_BASE_IMAGE  with docker: the image to build on, where python:3.X-slim cannot be pulled
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

TARGET=${TARGET:-process}
EPOCHS=${EPOCHS:-40}
START_SECONDS=120
STOP_SECONDS=60

# A short path, because sockets are made below it.
state=$(mktemp -d /tmp/launch-demo.XXXXXX)
log=$state/up.log
up=
follower=

main() {
    trap stop_system EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    case $TARGET in
        process) queue=local ;;
        docker) queue=docker && check_engine ;;
        *) fail "TARGET is process or docker, not '$TARGET'." ;;
    esac
    # Nothing of the user's own Prefect is used or changed.
    unset "${!PREFECT_@}" LAUNCH_CODE_STORE
    export PREFECT_HOME=$state/prefect LAUNCH_HOME=$state/launch
    mkdir "$PREFECT_HOME" "$LAUNCH_HOME"
    start_system

    say "Submitting examples/train to the queue $queue"
    local outcome=0 id
    # In the background, because bash answers a signal only when the command in the foreground has ended.
    in_group follow
    follower=$!
    wait "$follower" || outcome=$?
    follower=

    id=$(grep -Eom1 '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' "$state/submit.log") ||
        fail "submit named no run."
    say "The run"
    prefect-launch run show "$id"
    say "The Prefect UI, until this demo ends: http://127.0.0.1:$port"
    if [ "$outcome" -ne 0 ]; then
        say "The run did not complete (exit code $outcome)"
        exit "$outcome"
    fi
}

follow() {
    prefect-launch submit -q "$queue" -c examples/train/job.yaml --set "epochs=$EPOCHS" --follow </dev/null |
        tee "$state/submit.log"
}

# Starts a command in the background in a process group of its own: Ctrl-C reaches this script alone, which passes on
# what is right for each.
in_group() {
    set -m
    "$@" &
    set +m
}

check_engine() {
    python -c 'import docker; docker.from_env(timeout=10).ping()' 2>/dev/null ||
        fail "No Docker engine answers. Start one, or run the demo as a process: make demo"
}

start_system() {
    port=$(free_port)
    local arguments=(--port "$port")
    if [ "$TARGET" = docker ]; then
        printf 'queue_name: docker\ntarget: docker\nconcurrency: 1\n' >"$state/queue.yaml"
        arguments+=(-f "$state/queue.yaml")
    fi
    say "Starting a Prefect server, the queue $queue and an agent in $state"
    in_group prefect-launch up "${arguments[@]}" >"$log" 2>&1 </dev/null
    up=$!
    wait_until_ready
}

wait_until_ready() {
    local since=$SECONDS
    until prefect-launch queue show "$queue" --json >/dev/null 2>&1; do
        kill -0 "$up" 2>/dev/null || fail "The system ended while it started:" "$(tail -n 20 "$log")"
        [ $((SECONDS - since)) -lt "$START_SECONDS" ] ||
            fail "The system was not ready after $START_SECONDS seconds:" "$(tail -n 20 "$log")"
        echo "   … $((SECONDS - since)) s"
        sleep 1
    done
    say "Ready after $((SECONDS - since)) s"
}

# Ends what was started here, as Ctrl-C would, and removes the folder. The exit code stays.
stop_system() {
    local code=$? deadline
    trap '' INT TERM
    [ -z "$follower" ] || kill -TERM -- "-$follower" 2>/dev/null || true
    if [ -n "$up" ] && kill -INT "$up" 2>/dev/null; then
        say "Stopping"
        deadline=$((SECONDS + STOP_SECONDS))
        while kill -0 "$up" 2>/dev/null; do
            if [ "$SECONDS" -ge "$deadline" ]; then
                echo "demo: prefect-launch up (pid $up) is still there after $STOP_SECONDS seconds; see $log" >&2
                exit 1
            fi
            sleep 0.2
        done
    fi
    rm -rf "$state"
    exit "$code"
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

say() {
    printf '\n== %s\n' "$1"
}

fail() {
    printf 'demo: %s\n' "$@" >&2
    exit 1
}

main
