"""Schemas of a batch file's objects; validation errors become `Problem`s."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from cloner.errors import Problem
from cloner.input.parsers import Misread, Repeated
from cloner.validation import name_flaw, prose_flaw, shown

M = TypeVar("M", bound=BaseModel)


def _flaw(what: str) -> PydanticCustomError:
    """A validation error; `what` follows the key in its message, as in "is blank"."""
    return PydanticCustomError("flaw", "{what}", {"what": what})


def _name(text: str) -> str:
    if flaw := name_flaw(text):
        raise _flaw(flaw)
    return text


def _prose(text: str) -> str:
    text = text.replace("\r\n", "\n")
    if flaw := prose_flaw(text):
        raise _flaw(flaw)
    return text


def _speaker_id(value: object) -> int | str:
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, int) and not isinstance(value, bool):
        _name(str(value))
        return value
    raise _flaw(f"is {shown(value)}")


SpeakerId = Annotated[int | str, PlainValidator(_speaker_id)]
FileName = Annotated[str, AfterValidator(_name)]
Prose = Annotated[str, AfterValidator(_prose)]
Index = Annotated[int, Field(ge=0, lt=2**63)]


class _Object(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Task(_Object):
    """A row of the flat form."""

    speaker_id: SpeakerId
    target_text: Annotated[Prose, Field(validation_alias=AliasChoices("target_text", "text"))]
    segment_index: Index | None = None
    output_file: FileName | None = None
    npy_file: FileName | None = None
    reference_text: Prose | None = None

    @model_validator(mode="after")
    def _whole_reference(self) -> Self:
        if (self.npy_file is None) != (self.reference_text is None):
            raise _flaw("has only one of npy_file and reference_text")
        return self


TASK_KEYS = ("speaker_id", "target_text", "text", "segment_index", "output_file", "npy_file", "reference_text")


class GroupReference(_Object):
    """The reference of a speaker of the grouped form: a recording or codes."""

    audio: FileName | None = None
    codes: FileName | None = None
    text: Prose

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.audio is None) == (self.codes is None):
            raise _flaw(f"has {'both' if self.audio else 'none'} of audio and codes")
        return self


class Group(_Object):
    """A speaker of the grouped form."""

    id: SpeakerId
    reference: GroupReference | None = None
    texts: Annotated[list[Prose], Field(min_length=1)]


_RIGHT = {
    "speaker_id": "give a whole number or a name",
    "id": "give a whole number or a name",
    "target_text": "give the text to speak",
    "texts": "give the texts to speak",
    "segment_index": "give a whole number, 0 or more",
    "output_file": "give the name of the audio file to write",
    "npy_file": "give the .npy file with the codes of the speaker's reference",
    "reference_text": "give what is said in the speaker's reference",
    "reference": 'give {"audio": ..., "text": ...} or {"codes": ..., "text": ...}',
    "audio": "give the file of a recording",
    "codes": "give a .npy file",
    "text": "give what is said",
    "": "give both, or neither",
}
"""What would be right for a key, "" being a whole row. For `Generation`, pydantic's message is used."""


_UNQUOTED = {"string_type": (Misread, bool, int, float), "flaw": (Misread,)}
"""Types that an unquoted text may be parsed as, by the type of pydantic's error."""


def checked(model: type[M], values: object, place: str) -> M | list[Problem]:
    """`values` as a `model`, or all problems of their types and keys."""
    if not isinstance(values, dict):
        return [Problem(place, f"it is {shown(values)}", "give an object")]
    problems = [*repeated_keys(values, place), *repeated_keys(values.get("reference"), f"{place}.reference")]
    try:
        parsed = model.model_validate(values)
    except ValidationError as error:
        problems += [_problem(model, details, place) for details in error.errors(include_url=False)]
    return problems or parsed


def repeated_keys(values: object, place: str) -> list[Problem]:
    """A problem for each key that an object names more than once."""
    keys = values.keys_repeated if isinstance(values, Repeated) else []
    return [Problem(place, f"the key {shown(key)} appears more than once", "keep one") for key in keys]


def unknown_key(key: str, known: Iterable[str], place: str) -> Problem:
    """The problem of a key that is not in `known`."""
    return Problem(place, f"the key {shown(key)} is not known", _known_keys(key, tuple(known)))


@lru_cache(maxsize=1024)  # a misspelt key is usually misspelt in every row
def _known_keys(key: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    return f'did you mean "{nearest[0]}"?' if nearest else f"the keys are {', '.join(known)}"


def _problem(model: type[BaseModel], details: ErrorDetails, place: str) -> Problem:
    """One of pydantic's errors as a problem with its place, such as ``speakers[2].texts[0]``."""
    *outer, key = details["loc"] or ("",)
    if isinstance(key, int):
        outer, key, subject = [*outer, key], str(outer[-1]), "it"
    else:
        subject = key or "it"
    where = place + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in outer)
    match details["type"]:
        case "extra_forbidden":
            return unknown_key(key, _keys(GroupReference if outer else model), where)
        case "missing":
            what = "is missing"
        case "too_short":
            what = "is empty"
        case "flaw":
            what = details["msg"]
        case _:
            what = f"is {shown(details['input'])}"
    right = _RIGHT.get(key) or details["msg"].replace("Input", "it", 1)
    if details["type"] in _UNQUOTED and isinstance(details["input"], _UNQUOTED[details["type"]]):
        right += ", in quotes"
    return Problem(where, f"{subject} {what}", right)


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return TASK_KEYS if model is Task else tuple(model.model_fields)
