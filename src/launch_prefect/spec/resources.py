"""What a run needs of a machine."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, TypeAdapter

from launch_prefect.spec.base import Spec

_BYTES = TypeAdapter(ByteSize)


def to_bytes(quantity: str) -> int:
    """Bytes of a quantity written as Kubernetes and Docker users write it.

    Args:
        quantity: `512Mi`, `8Gi`, `8G`, `2GiB` or a plain number of bytes.

    Returns:
        The number of bytes.

    Raises:
        ValueError: It is not such a quantity.
    """
    text = quantity.strip()
    if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGTP]i?)?[Bb]?", text, re.IGNORECASE):
        raise ValueError("write an amount such as 512Mi or 8Gi")
    return int(_BYTES.validate_python(text if text[-1] in "bB" or text[-1].isdigit() else text + "B"))


def _check_memory(value: str) -> str:
    if to_bytes(value) < 6 * 1024**2:
        raise ValueError("at least 6Mi are needed to start anything")
    return value


Memory = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    AfterValidator(_check_memory),
]


class Resources(Spec):
    """Resources of one run; what is not given is not limited.

    Attributes:
        cpu: Processor cores, such as 2 or 0.5.
        gpu: Number of GPUs.
        memory: Memory, such as `8Gi`. A run that exceeds it is ended as out of memory.
    """

    cpu: float | None = Field(default=None, gt=0, description="Processor cores, such as 2 or 0.5.")
    gpu: int | None = Field(default=None, ge=0, description="Number of GPUs.")
    memory: Memory | None = Field(default=None, description="Memory, such as 8Gi.")

    @property
    def memory_bytes(self) -> int | None:
        """Memory in bytes, or None where it is not limited."""
        return to_bytes(self.memory) if self.memory is not None else None
