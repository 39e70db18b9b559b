"""References to Prefect blocks, as users write them and as Prefect's templates do. A reference is no secret."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*")
_TEMPLATE = re.compile(r"\{\{\s*prefect\.blocks\.([a-z0-9-]+)\.([a-z0-9-]+)\s*\}\}")


def _check(value: Any) -> Any:
    """`TYPE/NAME`, `{block: TYPE/NAME}` or Prefect's own `{{ prefect.blocks.TYPE.NAME }}`."""
    if isinstance(value, dict) and set(value) == {"block"}:
        value = value["block"]
    if isinstance(value, str) and (match := _TEMPLATE.fullmatch(value.strip())):
        value = f"{match[1]}/{match[2]}"
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("name a Prefect block as TYPE/NAME, such as {block: secret/my-token}; no secret stands here")
    return value


BlockName = Annotated[str, BeforeValidator(_check)]
"""A Prefect block as `TYPE/NAME`, such as `secret/my-token`."""


def template(block: str) -> str:
    """What Prefect puts the block's value in place of, when a worker reads it in job variables."""
    kind, _, name = block.partition("/")
    return f"{{{{ prefect.blocks.{kind}.{name} }}}}"
