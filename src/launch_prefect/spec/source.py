"""Where what a job runs comes from."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from launch_prefect.spec.base import Spec
from launch_prefect.spec.blocks import BlockName
from launch_prefect.spec.git import check_git_ref, check_git_url
from launch_prefect.spec.paths import check_inside

# Docker's reference grammar (github.com/distribution/reference), shortened: [host[:port]/]path[:tag][@digest]
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


def check_image(reference: str) -> str:
    """An image reference as Docker accepts it.

    Raises:
        ValueError: It is none, with what is wrong.
    """
    if _IMAGE_ID.fullmatch(reference) or _REFERENCE.fullmatch(reference):
        return reference
    if reference != reference.lower() and _REFERENCE.fullmatch(reference.lower()):
        raise ValueError("an image's name is lower case (its tag may be upper case)")
    raise ValueError("not an image reference; write one such as registry.example.com/team/train:1.4")


class CodeSource(Spec):
    """A folder of code.

    Attributes:
        code: The folder as the user named it; after submission only its last component, for people to read.
        digest: Digest of the snapshot's content, `sha256:…`. What a run uses.
        store: fsspec address of the code store that holds the snapshot.
    """

    code: str = Field(min_length=1)
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    store: str | None = None

    @property
    def version(self) -> str:
        """Short name of the content, shown as the deployment's version."""
        return f"code-{self.digest[7:19]}" if self.digest else "code"


class GitSource(Spec):
    """A git repository.

    Attributes:
        git: Its address: `https://…`, `ssh://…` or `git@host:path`.
        ref: Branch, tag or commit as the user named it. None is the repository's default branch.
        subdir: Folder of it that is the job's.
        commit: Full SHA that `ref` led to when the job was submitted. What a run uses.
        credentials: Block with a token or a private ssh key for it; `secret/…`, or one of prefect-github,
            prefect-gitlab or prefect-bitbucket.
        patch: Digest of the snapshot of changes that were not committed, `sha256:…`.
        store: fsspec address of the code store that holds `patch`.
    """

    git: Annotated[str, AfterValidator(check_git_url)]
    ref: Annotated[str, AfterValidator(check_git_ref)] | None = None
    subdir: Annotated[str, AfterValidator(check_inside)] | None = None
    commit: str | None = Field(default=None, pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    credentials: BlockName | None = None
    patch: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    store: str | None = None

    @property
    def version(self) -> str:
        """Short name of the content, shown as the deployment's version."""
        if self.commit is None:
            return "git"
        return f"git-{self.commit[:12]}" + (f"+{self.patch[7:15]}" if self.patch else "")


class ImageSource(Spec):
    """A container image.

    Attributes:
        image: Its reference, as the user named it.
        digest: What it led to when the job was submitted, `sha256:…`, where the registry answered. What a run uses.
    """

    image: Annotated[str, AfterValidator(check_image)]
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")

    @property
    def reference(self) -> str:
        """What a run pulls and runs."""
        if self.digest is None or "@" in self.image:
            return self.image
        folder, slash, name = self.image.rpartition("/")
        return f"{folder}{slash}{name.partition(':')[0]}@{self.digest}"

    @property
    def version(self) -> str:
        """Short name of the content, shown as the deployment's version."""
        return f"{self.image} ({self.digest[7:19]})" if self.digest and "@" not in self.image else self.image


_KINDS: dict[str, type[Spec]] = {"code": CodeSource, "git": GitSource, "image": ImageSource}


def _kind(value: Any) -> str | None:
    """Which source a value means, so that a mistake is explained for that one alone."""
    return next(
        (
            kind
            for kind, model in _KINDS.items()
            if isinstance(value, model) or (isinstance(value, dict) and kind in value)
        ),
        None,
    )


Source = Annotated[
    Annotated[CodeSource, Tag("code")] | Annotated[GitSource, Tag("git")] | Annotated[ImageSource, Tag("image")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="Give {code: FOLDER}, {git: ADDRESS} or {image: REFERENCE}",
    ),
]
