"""Images of ours on the Docker engine of this machine. Blocking: call it in a thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from launch_prefect import dockerpy, naming
from launch_prefect.images import engine
from launch_prefect.images.housekeeping.choice import Candidate
from launch_prefect.images.housekeeping.usage import Usage
from launch_prefect.images.making import LABEL_CODE, LABEL_ENVIRONMENT, LABEL_SOURCE


@dataclass(frozen=True, slots=True)
class Images:
    """What is on the engine.

    Attributes:
        ours: Our images.
        others: Layers of images that are not ours.
    """

    ours: tuple[Candidate, ...] = ()
    others: frozenset[str] = frozenset()


def find(usage: Usage) -> Images:
    """Our images, with the layers of each: `docker system df` would tell what is shared, but looks at every volume.

    Raises:
        Unreachable: The engine does not answer.
    """
    with engine.connected() as client:
        used = {container["ImageID"] for container in client.api.containers(all=True)}
        listed = client.api.images()
        layers = {image["Id"]: _layers(client, image["Id"]) for image in listed}
        ours = [image for image in listed if naming.LABEL in (image.get("Labels") or {})]
        environments: dict[str, list[str]] = {}
        for image in ours:
            if LABEL_CODE not in image["Labels"]:
                environments.setdefault(image["Labels"].get(LABEL_ENVIRONMENT, ""), []).append(image["Id"])
        found = tuple(
            _candidate(client, image, layers[image["Id"]], image["Id"] in used, environments, usage) for image in ours
        )
    own = {image["Id"] for image in ours}
    return Images(found, frozenset(layer for id_, sizes in layers.items() if id_ not in own for layer in sizes))


def remove(image: str) -> bool:
    """Remove an image by all of its names, and never by force.

    Args:
        image: Its id.

    Returns:
        Whether it has been removed by this; not if it is gone already, or a container has begun to use it.

    Raises:
        Unreachable: The engine does not answer.
    """
    with engine.connected() as client:
        try:
            names = client.api.inspect_image(image)
            # The engine would refuse only its last name.
            if any(container["ImageID"] == image for container in client.api.containers(all=True)):
                return False
            for name in [*(names.get("RepoTags") or []), *(names.get("RepoDigests") or []), image]:
                try:
                    client.api.remove_image(name, force=False, noprune=True)
                except dockerpy.ImageNotFound:  # its last name has taken it along
                    continue
        except dockerpy.ImageNotFound:
            return False
        except dockerpy.APIError as error:
            # In use by now; or removed by another process in the middle of our request, which the engine calls a fault.
            if error.status_code == 409 or "unrecognized image id" in str(error.explanation).lower():
                return False
            raise
        return engine.find(image) is None


def _layers(client: Any, image: str) -> dict[str, int]:
    """Bytes of an image's layers. The name of a layer holds what is below it: only the same on the same is shared."""
    try:
        history = client.api.history(image)
    except dockerpy.ImageNotFound:  # just removed
        return {}
    layers, below = {}, ""
    for step in reversed(history):
        text = f"{below}\n{step['Created']}\n{step['CreatedBy']}\n{step['Size']}"
        below = hashlib.sha256(text.encode()).hexdigest()
        if step["Size"]:
            layers[below] = int(step["Size"])
    return layers


def _candidate(
    client: Any,
    image: dict[str, Any],
    layers: dict[str, int],
    used: bool,
    environments: dict[str, list[str]],
    usage: Usage,
) -> Candidate:
    labels, tags = image["Labels"], image.get("RepoTags") or []
    tags = [tag for tag in tags if tag != "<none>:<none>"]
    digests = [digest.rpartition("@")[2] for digest in image.get("RepoDigests") or []]
    code = labels.get(LABEL_CODE)
    made_of = {labels[name] for name in (LABEL_CODE, LABEL_SOURCE) if labels.get(name)}
    last = usage.last("image", image["Id"])
    return Candidate(
        "image",
        image["Id"],
        _tagged(client, image) if last is None else last,
        layers,
        also=frozenset({*tags, *digests, *(image.get("RepoDigests") or []), *made_of}),
        in_use=used,
        stands_on=tuple(environments.get(labels.get(LABEL_ENVIRONMENT, ""), ())) if code else (),
        shown=tags[0] if tags else image["Id"],
    )


def _tagged(client: Any, image: dict[str, Any]) -> float:
    """When an image came to this machine: what is pulled may have been built long before."""
    created = float(image["Created"])
    try:
        time = client.api.inspect_image(image["Id"])["Metadata"]["LastTagTime"]
        return max(created, datetime.fromisoformat(time[:19] + "+00:00").timestamp())
    except (dockerpy.ImageNotFound, KeyError, TypeError, ValueError):
        return created
