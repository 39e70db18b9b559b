"""What all models of this package share: frozen, and strict about unknown keys."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from launch_prefect.errors import InvalidInput


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None where none is close."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


class Spec(BaseModel):
    """Base of the models that describe things: values, no behaviour beyond checking themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Any, *, what: str) -> Self:
        """Validate what a user wrote.

        Args:
            values: The parsed document.
            what: What it is, for the message, such as `job file train.yaml`.

        Returns:
            The model.

        Raises:
            InvalidInput: A field is wrong, missing or unknown; the message names each with what is accepted.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidInput(f"{what} is not valid: {explain(error, cls)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for each wrong field, with the nearest known name for an unknown one."""
    lines = []
    for problem in error.errors(include_url=False):
        where = _path(problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, problem["loc"][:-1])
            close = nearest(str(problem["loc"][-1]), known)
            hint = f"did you mean {close!r}?" if close else f"known are: {', '.join(sorted(known))}."
            lines.append(f"{where}: unknown field; {hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if _HOLDS_SECRETS.intersection(map(str, problem["loc"])) else f" (got {_shown(problem['input'])})"
            lines.append(f"{where}: {message}{got}.")
    return " ".join(lines)


def _path(location: tuple[int | str, ...]) -> str:
    # The tag of the union of sources is no field of the document: source.code.code -> source.code
    parts = [str(p) for n, p in enumerate(location) if not (n and location[n - 1] == "source")]
    if len(location) == 2 and location[0] == "source":
        parts = ["source"]
    return ".".join(parts) or "the document"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    models = [model]
    for n, part in enumerate(path):
        if n and path[n - 1] == "source":  # the tag of the union: it names a model, and a field of that model
            models = [m for m in models if str(part) in m.model_fields]
            continue
        fields = [m.model_fields[str(part)] for m in models if str(part) in m.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return {name for m in models for name in m.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for argument in get_args(annotation) for inner in _models_in(argument)]


# Fields that name a block: whoever writes the secret itself there must not find it in a log as well.
_HOLDS_SECRETS = {"credentials", "registry_credentials", "secrets"}
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


def _shown(value: Any) -> str:
    text = _CREDENTIALS.sub("//***@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."
