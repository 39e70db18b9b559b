#!/usr/bin/env bash
# Make a base image like `python:3.11-slim` out of the Python of this very machine, without pulling anything.
#
#   tests/testbed/base-image.sh [TAG]
#
# TAG defaults to launch-prefect-test/python:VERSION-slim and is printed at the end. Where the image is there already,
# nothing is done. $PYTHON chooses the interpreter (default: python3; of a virtual environment, the one it stands on).
#
# The image has that Python with pip, the shared libraries it and usual wheels need, and a static busybox as shell
# and tools. It needs Linux, glibc and root (for chroot).
set -euo pipefail

PYTHON=${PYTHON:-python3}
WHEEL_LIBRARIES="libstdc++.so.6 libgcc_s.so.1 libpthread.so.0 libdl.so.2 librt.so.1 libutil.so.1"
NAME_LIBRARIES="libnss_dns.so.2 libnss_files.so.2" # opened by the C library when a name is resolved
UNWANTED="test idlelib tkinter lib2to3 turtledemo site-packages dist-packages __pycache__"

main() {
    local version stdlib interpreter wheels tag
    version=$(ask 'f"{sys.version_info[0]}.{sys.version_info[1]}"')
    stdlib=$(ask 'sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})')
    interpreter=$(ask 'os.path.realpath(sys.executable)')
    tag=${1:-launch-prefect-test/python:$version-slim}
    if docker image inspect "$tag" >/dev/null 2>&1; then
        echo "$tag"
        return
    fi
    docker version >/dev/null || fail "No Docker engine answers; tests/testbed/docker-engine.sh starts one."
    wheels=$(ask 'ensurepip._WHEEL_PKG_DIR or os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")')

    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    make_folders
    add_busybox
    add_python "$version" "$stdlib" "$interpreter"
    add_libraries "$interpreter"
    add_pip "$wheels"
    tar -C "$root" -cf - . | docker import \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
        --change 'CMD ["python3"]' - "$tag" >/dev/null
    echo "$tag"
}

# The value of a Python expression.
ask() {
    "$PYTHON" -c "import ensurepip, os, sys, sysconfig; print($1)" ||
        fail "$PYTHON does not work, or has no ensurepip (Debian: install python3-venv)."
}

make_folders() {
    cd "$root"
    mkdir -p bin dev etc/ssl/certs home lib64 proc root run sbin sys tmp usr/bin usr/lib usr/local/bin var/tmp
    chmod 755 .
    chmod 1777 tmp var/tmp
    ln -s usr/lib lib
    echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
    echo 'root:x:0:' >etc/group
    echo 'hosts: files dns' >etc/nsswitch.conf
    cd "$OLDPWD"
}

add_busybox() {
    local busybox applet
    busybox=$(command -v busybox || true)
    if [ -z "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
        fail "A static busybox is needed; install busybox-static."
    fi
    cp -L "$busybox" "$root/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    ln -s /bin/env "$root/usr/bin/env"
}

add_python() {
    local version=$1 stdlib=$2 interpreter=$3 prefix=/usr/local name
    # Debian's own Python installs wheels below /usr/local only where it is itself in /usr.
    [ "$(ask 'sys.base_prefix')" != /usr ] || prefix=/usr
    local target=$root$prefix/lib/python$version
    cp "$interpreter" "$root$prefix/bin/python$version"
    ln -s "python$version" "$root$prefix/bin/python3"
    ln -s python3 "$root$prefix/bin/python"
    mkdir -p "$target/site-packages"
    # shellcheck disable=SC2046  # one option a word is what is wanted
    tar -C "$stdlib" $(for name in $UNWANTED; do echo "--exclude=$name"; done) --exclude='./config-*' --exclude=EXTERNALLY-MANAGED -chf - . |
        tar -C "$target" -xf -
}

# From the wheel that the interpreter brings for its virtual environments. (Debian disables `ensurepip` itself.)
add_pip() {
    cp -r "$1" "$root/tmp/wheels"
    chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root sh -c '
        set -- /tmp/wheels/pip-*.whl
        python "$1/pip" install --quiet --no-index --find-links /tmp/wheels --no-cache-dir \
            --root-user-action ignore pip'
    rm -rf "$root/tmp/wheels"
}

# Shared libraries of the interpreter, of its extension modules, and of the wheels that will be installed.
add_libraries() {
    local interpreter=$1 name
    {
        echo "$interpreter"
        find "$root/usr" -name '*.so'
    } | { xargs -n1 ldd 2>/dev/null || true; } | awk '$3 ~ "^/" { print $3 }' | sort -u >"$root/libraries"
    for name in $WHEEL_LIBRARIES $NAME_LIBRARIES; do
        ldconfig -p | awk -v name="$name" '$1 == name && !found++ { print $NF }' >>"$root/libraries"
    done
    sort -u "$root/libraries" | xargs cp -L --target-directory="$root/usr/lib"
    rm "$root/libraries"
    # The dynamic loader is named by an absolute path in every program.
    local loader
    loader=$(ldd "$interpreter" | awk '$1 ~ "/ld-linux" { print $1 }')
    [ -e "$root$loader" ] || cp -L "$loader" "$root$loader"
    echo /usr/lib >"$root/etc/ld.so.conf"
    ldconfig -r "$root"
}

fail() {
    echo "base-image.sh: $1" >&2
    exit 1
}

main "$@"
