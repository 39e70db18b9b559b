#!/usr/bin/env bash
# Make sure that a Docker engine answers on this machine, and print the address of its socket.
#
#   tests/testbed/docker-engine.sh
#
# For Debian and Ubuntu, as root, without an init system: a container or a virtual machine of a CI service. Where an
# engine answers already it does nothing. The engine that it starts keeps running; stop it with
#   kill "$(cat /run/launch-docker/docker.pid)"
set -euo pipefail

SOCKET=/var/run/docker.sock
STATE=/run/launch-docker # what the engine needs while it runs, and its log
LOG=$STATE/dockerd.log
DOCKERD=/usr/sbin/dockerd
START_SECONDS=60

main() {
    if ! answers; then
        [ "$(id -u)" -eq 0 ] || fail "Starting a Docker engine needs root."
        install_engine
        mount_cgroups
        start_engine
    fi
    echo "unix://$SOCKET"
}

answers() {
    [ "$(curl -fsS --max-time 5 --unix-socket "$SOCKET" http://engine/_ping 2>/dev/null)" = OK ]
}

install_engine() {
    [ -x "$DOCKERD" ] && command -v curl >/dev/null && return
    command -v apt-get >/dev/null || fail "There is no apt-get here: install a Docker engine by hand."
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2
    # iptables: the engine's networks need it; it is only recommended by the package.
    apt-get -qq install --no-install-recommends docker.io iptables cgroupfs-mount ca-certificates curl >&2
    # The package may have started an engine, where there is an init system.
    ! answers || exit_with_socket
}

# The engine's runtime needs the control groups, which an init system would have mounted.
mount_cgroups() {
    mountpoint -q /sys/fs/cgroup || cgroupfs-mount
}

start_engine() {
    mkdir -p "$STATE"
    rm -f "$STATE/docker.pid" # left by an engine that was killed
    # A session and files of its own: the engine outlives this script and holds none of its pipes.
    setsid "$DOCKERD" \
        --host "unix://$SOCKET" \
        --exec-root "$STATE/exec" \
        --pidfile "$STATE/docker.pid" \
        --mtu "$(uplink_mtu)" \
        >"$LOG" 2>&1 </dev/null &
    local engine=$! deadline=$((SECONDS + START_SECONDS))
    until answers; do
        if ! kill -0 "$engine" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 20 "$LOG" >&2
            fail "The Docker engine did not start; its log is $LOG."
        fi
        sleep 0.1
    done
}

# Packets larger than the uplink takes are lost, and then downloads inside containers hang.
uplink_mtu() {
    local device
    device=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route)
    cat "/sys/class/net/$device/mtu" 2>/dev/null || echo 1400
}

exit_with_socket() {
    echo "unix://$SOCKET"
    exit 0
}

fail() {
    echo "docker-engine.sh: $1" >&2
    exit 1
}

main
