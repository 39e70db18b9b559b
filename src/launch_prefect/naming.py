"""Names of images, containers and labels, as pure functions.

Two different inputs never share a name: where a name has to be shortened or cleaned to be legal, a digest of the
original is appended.
"""

from __future__ import annotations

import hashlib
import re

LABEL = "launch_prefect"
"""Label every container, image and pod of ours carries; its value is the format version of the labels."""
LABEL_VERSION = "1"
LABEL_RUN_ID = "launch_prefect.run-id"
LABEL_ATTEMPT = "launch_prefect.attempt"
LABEL_AGENT = "launch_prefect.agent"
LABEL_JOB = "launch_prefect.job"
LABEL_QUEUE = "launch_prefect.queue"

TYPE_PREFIX = "launch-"
TARGETS = ("process", "docker")
"""Targets of this release; a queue's work pool is of type `launch-TARGET`."""

IMAGE_REPOSITORY = "launch-prefect"

_DIGESTED = re.compile(r"(?:.*-)?[0-9a-f]{8}")


def pool_type(target: str) -> str:
    """The Prefect work pool type of a target: `docker` → `launch-docker`."""
    return TYPE_PREFIX + target


def target_of(pool_type: str) -> str | None:
    """The target of a work pool type, or None where the pool is not one of ours."""
    return pool_type.removeprefix(TYPE_PREFIX) if pool_type.startswith(TYPE_PREFIX) else None


def slug(text: str, *, limit: int = 48) -> str:
    """Lower-case letters, digits and single dashes; a digest is appended when anything was lost.

    It is appended, too, to a text that ends as if it had been: no text has the name of another.

    Args:
        text: Any text.
        limit: Longest result in characters; at least 16.

    Returns:
        A name legal as an image repository component, a container name and a DNS label.
    """
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if cleaned == text and 0 < len(cleaned) <= limit and not _DIGESTED.fullmatch(text):
        return cleaned
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{cleaned[: limit - 9].strip('-')}-{digest}".lstrip("-")


def digest_hex(digest: str) -> str:
    """The hexadecimal part of a digest such as `sha256:1f…`."""
    return digest.rpartition(":")[2]


def environment_image(key: str, registry: str | None = None) -> str:
    """Image that holds an environment (dependencies, no code), named by what determines it.

    Args:
        key: Digest of what determines it.
        registry: Registry and folder that keep it; None for the engine alone.
    """
    return f"{registry}/launch-env:{digest_hex(key)}" if registry else f"{IMAGE_REPOSITORY}/env:{digest_hex(key)}"


def job_image(job: str, key: str, registry: str | None = None) -> str:
    """Image of a job's code on its environment, named by the digest of both.

    Args:
        job: Name of the job.
        key: Digest of code and environment.
        registry: Registry and folder that keep it; None for the engine alone.
    """
    return f"{registry or IMAGE_REPOSITORY}/{slug(job)}:{digest_hex(key)}"


def repository(reference: str) -> str:
    """An image's name without tag and digest. A colon before the last slash belongs to a port."""
    folder, slash, last = reference.partition("@")[0].rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def container_name(job: str, run_id: str, attempt: int) -> str:
    """Container of one attempt at a run."""
    return f"launch-{slug(job, limit=40)}-{run_id}-{attempt}"
