"""Where what a job runs comes from."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from launch_prefect.spec.base import Spec

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


class ImageSource(Spec):
    """A container image.

    Attributes:
        image: Its reference.
    """

    image: Annotated[str, AfterValidator(check_image)]

    @property
    def version(self) -> str:
        """Short name of the content, shown as the deployment's version."""
        return self.image


def _kind(value: Any) -> str | None:
    """Which source a value means, so that a mistake is explained for that one alone."""
    if isinstance(value, CodeSource | ImageSource):
        return "code" if isinstance(value, CodeSource) else "image"
    return next((kind for kind in ("code", "image") if isinstance(value, dict) and kind in value), None)


Source = Annotated[
    Annotated[CodeSource, Tag("code")] | Annotated[ImageSource, Tag("image")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="Give {code: FOLDER} or {image: REFERENCE}",
    ),
]
