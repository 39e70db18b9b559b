"""Shell commands of generated Dockerfiles: for any distribution's shell, and for busybox."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase

from launch_prefect.images.detect import Environment
from launch_prefect.images.python_version import fitting

CA_SECRET = "ca_bundle"  # noqa: S105 - the name of a build secret, not its value
VENV = "/opt/venv"
HOME = "/home/launch"
UID = 1000
"""The user that jobs run as: whoever has this number in the base image, else one made for it."""

_PIP_OPTIONS = "-m pip install --disable-pip-version-check --root-user-action=ignore"
PIP = f"python {_PIP_OPTIONS}"
UV = "/tmp/uv/bin/uv"  # noqa: S108 - in an image that is being built, and nobody else is there
# uv goes to a folder that is removed again, so that the image has the job's packages alone.
GET_UV = f"{PIP} --quiet --target /tmp/uv uv"

_NEXT = " \\\n       "
_CACHE = "/var/cache/launch-prefect"
_SECRETS = "/run/secrets"
_NETRC = "NETRC"
_PYTHONS = "/opt/python"
_PYTHON_PACKAGES = {"apt-get": ["python3", "python3-venv"], "apk": ["python3", "py3-pip"]}
_PYTHON_PACKAGES_ELSEWHERE = ["python3", "python3-pip"]

_INSTALLERS = {
    "apt-get": "export DEBIAN_FRONTEND=noninteractive && apt-get update "
    "&& apt-get install -y --no-install-recommends {packages} && apt-get clean && rm -rf /var/lib/apt/lists/*",
    "apk": "apk add --no-cache {packages}",
    "dnf": "dnf install -y {packages} && dnf clean all",
    "microdnf": "microdnf install -y {packages} && microdnf clean all",
    "yum": "yum install -y {packages} && yum clean all",
    "zypper": "zypper --non-interactive install --no-recommends {packages} && zypper clean --all",
}


def install_packages(packages: Sequence[str] | None = None) -> str:
    """Install packages with whichever package manager the image has.

    Args:
        packages: Their names; None for Python, whose packages each distribution names its own way.
    """
    branches = []
    for program, command in _INSTALLERS.items():
        names = _PYTHON_PACKAGES.get(program, _PYTHON_PACKAGES_ELSEWHERE) if packages is None else packages
        install = command.format(packages=" ".join(map(shlex.quote, names)))
        branches.append(f"if command -v {program} >/dev/null; then {install};")
    what = "Python" if packages is None else "system_packages"
    message = f"The base image has no package manager to install {what} with. Name another base_image."
    return f"{_NEXT}el".join(branches) + f'{_NEXT}else echo "{message}" >&2; exit 1; fi'


def make_user() -> list[str]:
    """Have a user with our number, and a home in which any user may write.

    Written to the files themselves: some images have no `useradd`, and each distribution has another.
    """
    line_end = 'if [ -n "$(tail -c 1 /etc/{file})" ]; then echo >>/etc/{file}; fi'
    return [
        "touch /etc/passwd /etc/group",
        line_end.format(file="passwd"),
        line_end.format(file="group"),
        f"{{ cut -d: -f3 /etc/group | grep -qx {UID} || echo launch:x:{UID}: >>/etc/group; }}",
        f"{{ cut -d: -f3 /etc/passwd | grep -qx {UID} || echo launch:x:{UID}:{UID}::{HOME}:/bin/sh >>/etc/passwd; }}",
        f"mkdir -p {HOME}",
        f"chown {UID}:{UID} {HOME}",
        f"chmod 0777 {HOME}",
    ]


def provide_python(environment: Environment) -> list[str]:
    """Have a `python` that fits, with pip.

    That of the base image, else a virtual environment on its `python3`, on that of its distribution, or on one that
    uv downloads.
    """
    patterns = "|".join(fitting(environment.python, environment.requires_python))
    ask = "-c 'import platform; print(platform.python_version())'"
    version = shlex.quote(environment.python or "3")
    get_uv = f"{_PIP_OPTIONS} --quiet --target /tmp/uv uv"
    venv = f"python3 -m venv --system-site-packages {VENV} >/dev/null 2>&1"
    venv_by_uv = f"venv --seed --managed-python --python {version} {VENV}"
    name = f"Python {environment.requires_python or environment.python or 3}"
    problem = f"The base image has no {name}, and it could not be installed. Name a base_image that has it."
    return [
        f"echo {shlex.quote(f'Looking for {name}')}",
        f"give_up() {{ echo {shlex.quote(problem)} >&2; exit 1; }}",
        f'fits() {{ case "$("$1" {ask} 2>/dev/null)" in {patterns}) true;; *) false;; esac; }}',
        "with_own() { fits python && python -m pip --version >/dev/null 2>&1; }",
        f"make_venv() {{ {venv} || {{ rm -rf {VENV}; false; }}; }}",
        "with_python3() { fits python3 && make_venv; }",
        "can_install() { python3 -m pip --version >/dev/null 2>&1 || python3 -c 'import ensurepip' 2>/dev/null; }",
        f"install_python() {{ {install_packages()}; }}",
        f"get_uv_in_venv() {{ python3 -m venv /tmp/venv && /tmp/venv/bin/python {get_uv}; }}",
        f"get_uv() {{ python3 {get_uv} 2>/dev/null || get_uv_in_venv; }}",
        f'by_uv() {{ UV_PYTHON_DOWNLOADS=manual UV_PYTHON_INSTALL_DIR={_PYTHONS} {UV} "$@"; }}',
        f"with_uv() {{ get_uv && by_uv python install --no-bin {version} && by_uv {venv_by_uv} "
        "&& rm -rf /tmp/uv /tmp/venv; }",
        "if ! with_own && ! with_python3; then can_install || install_python; with_python3 || with_uv || give_up; fi",
    ]


def is_python_image(base: str, environment: Environment) -> bool:
    """Whether an image's name says that it has a Python that fits: `python:3.12-slim`, from any registry.

    Args:
        base: Its reference.
        environment: What asks for a version.
    """
    named = re.fullmatch(r"(?:.*/)?python:(3\.\d+)(\.\d+)?(?:[.-].*)?(?:@.*)?", base)
    patterns = fitting(environment.python, environment.requires_python)
    return named is not None and any(fnmatchcase(named[1] + (named[2] or "."), pattern) for pattern in patterns)


def with_settings(commands: Sequence[str], secrets: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a step that installs needs around its commands.

    Args:
        commands: Its commands.
        secrets: Names of build secrets beside the CA bundle.

    Returns:
        The mounts of the step, and its commands after those that set its environment.
    """
    settings = [
        "PIP_BREAK_SYSTEM_PACKAGES=1",
        f"PIP_CACHE_DIR={_CACHE}/pip",
        f"RATTLER_CACHE_DIR={_CACHE}/conda",
        "UV_BREAK_SYSTEM_PACKAGES=1",
        f"UV_CACHE_DIR={_CACHE}/uv",
        "UV_LINK_MODE=copy",
        f"UV_PROJECT_ENVIRONMENT={VENV}",
        "UV_PYTHON_DOWNLOADS=never",
    ]
    bundle = f"{_SECRETS}/{CA_SECRET}"
    mounts = [f"--mount=type=cache,id=launch-prefect,target={_CACHE}"]
    mounts += [f"--mount=type=secret,id={name},target={_SECRETS}/{name}" for name in (CA_SECRET, *secrets)]
    exports = ["export " + _NEXT.join(settings), *map(_export, secrets)]
    if secrets:
        exports += [
            _same_index("PIP_INDEX_URL", "UV_INDEX_URL"),
            _same_index("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
        ]
    exports.append(f"if [ -s {bundle} ]; then export PIP_CERT={bundle} SSL_CERT_FILE={bundle}; fi")
    return mounts, [*exports, *commands]


def _export(name: str) -> str:
    """The value of a build secret in the variable of its name, for this step alone."""
    file = f"{_SECRETS}/{name}"
    value = file if name == _NETRC else f'"$(cat {file})"'
    return f"{{ [ ! -f {file} ] || export {name}={value}; }}"


def _same_index(pip: str, uv: str) -> str:
    """Uv reads no variable of pip's, but means the same by its own."""
    return f'{{ [ -z "${{{pip}-}}" ] || export {uv}="${{{uv}:-${pip}}}"; }}'
