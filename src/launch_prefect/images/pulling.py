"""Images that are not ours: found on the engine, or pulled as a policy says."""

from __future__ import annotations

import asyncio

from launch_prefect.errors import DiskFull, ImageMissing, InvalidInput, RegistryRefused, Unreachable
from launch_prefect.images import engine
from launch_prefect.images.kept import until_stopped
from launch_prefect.images.processes import Log
from launch_prefect.images.sharing import Build, SharedBuilds

POLICIES = ("IfNotPresent", "Always", "IfPossible", "Never")


class Puller:
    """Pulls images; what several want at once is pulled once. One event loop uses one."""

    def __init__(self) -> None:
        self._pulls: SharedBuilds[str] = SharedBuilds()

    async def resolve(
        self,
        reference: str,
        *,
        log: Log,
        policy: str | None = None,
        credentials: engine.Credentials | None = None,
    ) -> str:
        """The id of an image that is not ours, pulled as the policy says.

        Args:
            reference: Its name or id. What is named by an id is never pulled.
            log: Takes a line before and after a pull, and one if it fails and the image that is here is taken.
            policy: `IfNotPresent`; `Always`, where a pull that fails is an error; `IfPossible`, where the image that
                is here is then taken; `Never`. None is `IfPossible` for the tag `latest` or no tag, and
                `IfNotPresent` for all other names.
            credentials: Used for a pull from the registry that they are for, and for no other.

        Returns:
            Its id, `sha256:…`.

        Raises:
            InvalidInput: There is no such policy.
            ImageMissing: There is no such image, the registry refuses it, or it would have to be pulled and may not.
            DiskFull: No space is left where the engine keeps images.
            Unreachable: The engine does not answer.
        """
        if policy not in (None, *POLICIES):
            raise InvalidInput(
                f"image_pull_policy cannot be {policy!r}.", mend=f"What is accepted: {', '.join(POLICIES)}."
            )
        here = await asyncio.to_thread(engine.find, reference)
        is_id = reference.startswith("sha256:") or (here or "").startswith(f"sha256:{reference}")
        policy = policy or ("IfPossible" if _may_change(reference) else "IfNotPresent")
        if here and (is_id or policy in ("IfNotPresent", "Never")):
            return here
        if is_id:
            raise engine.missing(reference, "it is not on this machine, and an id names an image of one machine only")
        if policy == "Never":
            raise ImageMissing(
                f"The image {reference} is not on this machine, and image_pull_policy is Never.",
                mend=f"Pull it on the agent's machine (docker pull {reference}), or set the queue's image_pull_policy "
                "to IfNotPresent.",
            )
        try:
            return await self._pull(reference, credentials, log)
        except (ImageMissing, RegistryRefused, DiskFull, Unreachable) as error:
            if here is None or policy != "IfPossible":
                raise
            log(f"{error.message} The one that is on this machine is taken: {here}")
            return here

    async def _pull(self, reference: str, credentials: engine.Credentials | None, log: Log) -> str:
        if credentials and not engine.is_credentials_for(reference, credentials):
            log(f"The registry credentials are for {credentials[0]}, not for {reference}: they are not used.")
            credentials = None

        async def work(build: Build) -> str:
            build.log(f"Pulling image {reference}")
            image = await until_stopped(lambda stop: engine.pull(reference, stop, credentials))
            build.log(f"Pulled image {reference}: {image}")
            return image

        # Who has other credentials does not share a refusal, nor an image that those would not lead to.
        key = f"{reference}\n{hash(credentials)}"
        return await self._pulls.run(key, work, log=log, on_build=_nothing)


def _may_change(reference: str) -> bool:
    """Whether a name has the tag `latest` or none."""
    name = reference.rpartition("/")[2]
    return "@" not in name and name.partition(":")[2] in ("", "latest")


async def _nothing() -> None:
    return None
