"""Files that hold credentials, found by their names and by what is in them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

_PASSWORDS = "passwords or tokens"
_KEYS = "private keys"
_CLOUD = "credentials of a cloud"
_REGISTRY = "credentials of a registry"

_NAMES = {
    ".env": "variables that are often secret",
    ".env.*": "variables that are often secret",
    ".envrc": "variables that are often secret",
    **dict.fromkeys(
        (
            ".netrc", "_netrc", ".git-credentials", ".pypirc", ".npmrc", ".yarnrc.yml", ".pgpass", ".my.cnf",
            ".htpasswd", ".vault-token", ".kaggle", "kaggle.json", ".databrickscfg", ".snowsql", ".modal.toml",
            "rclone.conf", ".rclone.conf", ".terraformrc", ".password-store", "*.kdbx", "*.ovpn",
        ),
        _PASSWORDS,
    ),
    **dict.fromkeys(
        (
            ".ssh", ".gnupg", "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "*.ppk",
            "*.p12", "*.pfx", "*.jks", "*.keystore", "*.key",
        ),
        _KEYS,
    ),
    **dict.fromkeys(
        (
            ".aws", ".azure", ".oci", ".boto", ".s3cfg", ".passwd-s3fs", "rootkey.csv", "*_accessKeys.csv",
            "application_default_credentials.json",
        ),
        _CLOUD,
    ),
    ".kube": "credentials of clusters",
    "kubeconfig": "credentials of clusters",
    ".dockercfg": _REGISTRY,
    ".dockerconfigjson": _REGISTRY,
    "*.tfstate": "all that Terraform knows, passwords too",
    "*.tfstate.backup": "all that Terraform knows, passwords too",
}  # fmt: skip

_BELOW = {
    ".docker/config.json": _REGISTRY,
    ".config/gcloud": _CLOUD,
    ".config/containers/auth.json": _REGISTRY,
    **dict.fromkeys(
        (
            ".huggingface/token", ".huggingface/stored_tokens", "huggingface/token", "huggingface/stored_tokens",
            ".config/gh/hosts.yml", ".streamlit/secrets.toml", ".prefect/profiles.toml", ".cargo/credentials",
            ".cargo/credentials.toml", ".gem/credentials", ".pulumi/credentials.json",
            ".terraform.d/credentials.tfrc.json",
        ),
        _PASSWORDS,
    ),
}  # fmt: skip
"""Names that mean a secret only in their folder."""

_EXACT = {name: why for name, why in _NAMES.items() if "*" not in name}
_PATTERNS = {name: why for name, why in _NAMES.items() if "*" in name}

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_GOOGLE_USER = re.compile(rb'"type"\s*:\s*"(?:authorized_user|external_account_authorized_user)"')
_LOOKED_AT = 64 * 1024


def named_secret(path: Path) -> str | None:
    """What a file or folder is likely to hold, judged by its name; None for all that is no secret.

    Args:
        path: Its path; the folders that it is in count, too.

    Returns:
        Words that follow "may hold", such as `private keys`.
    """
    name = path.name
    if name in _EXACT:
        return _EXACT[name]
    for pattern, why in _PATTERNS.items():
        if fnmatchcase(name, pattern):
            return why
    for end, why in _BELOW.items():
        if end.endswith(f"/{name}") and f"/{path.as_posix()}".endswith(f"/{end}"):
            return why
    return None


def secret_inside(path: Path) -> str | None:
    """What secret the first 64 KiB of a file hold; None if there is none, or it is no file.

    The header of a private key is looked for, which Google's `service-account.json` has, too, and Google's file of a
    user who is logged in. A `.pem` file is read whole: the key may follow many certificates. A certificate alone is
    public.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(-1 if path.suffix == ".pem" else _LOOKED_AT)
    if _PRIVATE_KEY.search(start):
        return _KEYS
    if path.suffix == ".json" and b'"refresh_token"' in start and _GOOGLE_USER.search(start):
        return _CLOUD
    return None
