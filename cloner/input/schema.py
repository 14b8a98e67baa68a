"""Schemas of a batch file's objects; validation errors become `Problem`s."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Self, TypeVar, cast

from pydantic import (
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
from cloner.input.fields import FileName, Index, Language, Prose, SegmentId, SpeakerId, field_flaw, prose
from cloner.input.parsers import Misread, Repeated
from cloner.validation import name_flaw, shown

M = TypeVar("M", bound=BaseModel)


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
    id: SegmentId | None = None
    seed: Index | None = None
    language: Language = None

    @model_validator(mode="after")
    def _whole_reference(self) -> Self:
        if self.npy_file is None and self.reference_text is not None:
            raise field_flaw("has a reference_text, but no npy_file", "give both, or neither")
        return self


TASK_KEYS = (
    "speaker_id",
    "target_text",
    "text",
    "segment_index",
    "output_file",
    "npy_file",
    "reference_text",
    "id",
    "seed",
    "language",
)


class Utterance(_Object):
    """A line of a list of recordings."""

    recording: FileName
    text: Prose
    transcript: Prose | None = None
    """What is said in the recording; None if that is the text."""
    speaker: SpeakerId | None = None
    name: FileName | None = None
    """The output's name, without its ending."""
    language: Language = None


class NemoLine(_Object):
    """What is of use of a line of a NeMo manifest."""

    audio_filepath: FileName
    text: Prose
    speaker: SpeakerId | None = None
    offset: float | None = None
    lang: Language = None


def _recording_name(value: object) -> str | None:
    flaw = name_flaw(value) if isinstance(value, str) else f"is {shown(value)}"
    if value is not None and flaw:
        raise field_flaw(flaw, "give the file of a recording, relative to the folder, or leave it out")
    return cast("str | None", value)


class CheckLine(_Object):
    """A line of the list of takes that are checked."""

    file: FileName
    text: Prose
    speaker: SpeakerId
    reference: Annotated[str | None, PlainValidator(_recording_name)] = None
    language: Language = None


class GroupText(_Object):
    """A text of the grouped form that has more than its words."""

    text: Prose
    output: FileName | None = None
    id: SegmentId | None = None
    seed: Index | None = None
    language: Language = None


class GroupReference(_Object):
    """The reference of a speaker of the grouped form: a recording or codes."""

    audio: FileName | None = None
    codes: FileName | None = None
    text: Prose | None = None

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.audio is None) == (self.codes is None):
            raise field_flaw(f"has {'both' if self.audio else 'none'} of audio and codes", _RIGHT["reference"])
        return self


def _mapping(value: object) -> object:
    if value is None or isinstance(value, dict):
        return value
    raise PydanticCustomError("object_type", "not an object")


def _list(value: object) -> object:
    if not isinstance(value, list):
        raise PydanticCustomError("list_type", "not a list")
    if not value:
        raise field_flaw("is empty")
    return value


class Group(_Object):
    """A speaker of the grouped form, without what its reference, words and texts hold: those are checked one by
    one, as pydantic would collect the errors of all texts, 1 KB each."""

    id: SpeakerId
    language: Language = None
    reference: Annotated[object, PlainValidator(_mapping)] = None
    pronounce: object = None
    numbers: object = None
    texts: Annotated[object, PlainValidator(_list)]


_RIGHT = {
    "speaker_id": "give a whole number or a name",
    "id": "give a whole number or a name",
    "target_text": "give the text to speak",
    "texts": 'give a list of texts, such as ["Good morning."]',
    "segment_index": "give a whole number, 0 or more",
    "seed": "give a whole number, 0 or more",
    "output_file": "give the name of the audio file to write",
    "output": "give the name of the audio file to write",
    "npy_file": "give the .npy file with the codes of the speaker's reference",
    "reference_text": "give what is said in the speaker's reference",
    "reference": 'give {"audio": ..., "text": ...} or {"codes": ..., "text": ...}',
    "audio": "give the file of a recording",
    "codes": "give a .npy file",
    "text": "give what is said",
    "recording": "give the file of a recording",
    "transcript": "give what is said in the recording",
    "speaker": "give a whole number or a name",
    "name": "give the name of the output, without its ending",
    "audio_filepath": "give the file of a recording",
    "file": "give the name of an audio file, relative to the folder",
}
"""What would be right for a key. For `Generation`, pydantic's message is used."""


_UNQUOTED = {"string_type": (Misread, bool, int, float), "flaw": (Misread,)}
"""Types that an unquoted text may be parsed as, by the type of pydantic's error."""


def checked(
    model: type[M], values: object, place: str, names: Mapping[str, str] = MappingProxyType({})
) -> M | Iterable[Problem]:
    """`values` as a `model`, or the problems of their types and keys, made as they are iterated over: an object may
    have millions of unknown keys. `names` are those by which the user knows some keys."""
    if not isinstance(values, dict):
        return [Problem(place, f"it is {shown(values)}", "give an object")]
    known = _keys(model)
    found: list[ErrorDetails] = []
    try:
        parsed = model.model_validate({key: values[key] for key in known if key in values})
        if not isinstance(values, Repeated) and all(key in known for key in values):
            return parsed
    except ValidationError as error:
        found = error.errors(include_url=False)
    return chain(
        repeated_keys(values, place),
        (_problem(model, details, place, names) for details in found),
        (unknown_key(key, known, place) for key in values if key not in known),
    )


def checked_text(value: object, place: str) -> GroupText | Iterable[Problem]:
    """One of a group's texts, which may be an object, or its problems."""
    if isinstance(value, dict):
        return checked(GroupText, value, place)
    try:
        if isinstance(value, str):
            return GroupText(text=prose(value))  # in half the time of `model_construct`
        what, right = f"is {shown(value)}", None
    except PydanticCustomError as error:
        what, right = error.message(), (error.context or {}).get("right")
    right = (right or _RIGHT["target_text"]) + (", in quotes" if isinstance(value, _UNQUOTED["string_type"]) else "")
    return [Problem(place, f"it {what}", right)]


def repeated_keys(values: object, place: str) -> Iterator[Problem]:
    """A problem for each key that an object names more than once."""
    keys = values.keys_repeated if isinstance(values, Repeated) else ()
    return (Problem(place, f"the key {shown(key)} appears more than once", "keep one") for key in keys)


def unknown_key(key: str, known: Iterable[str], place: str) -> Problem:
    """The problem of a key that is not in `known`."""
    return Problem(place, f"the key {shown(key)} is not known", right_name("keys", key[:100], tuple(known)))


@lru_cache(maxsize=1024)  # a misspelt key is usually misspelt in every row
def right_name(kind: str, name: str, known: tuple[str, ...]) -> str:
    """What would be right in the place of a misspelt name; `kind` says what the names are of, in the plural."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{nearest[0]}"?' if nearest else f"the {kind} are {', '.join(known)}"


def _problem(model: type[BaseModel], details: ErrorDetails, place: str, names: Mapping[str, str]) -> Problem:
    """One of pydantic's errors as a problem."""
    key = str(details["loc"][0]) if details["loc"] else ""
    match details["type"]:
        case "extra_forbidden":  # unknown keys are not validated: it is the second name of one that is there
            return Problem(place, "it has both target_text and text, which are the same", "leave one of them out")
        case "missing":
            what = "is missing"
        case "flaw":
            what = details["msg"]
        case _:
            what = f"is {shown(details['input'])}"
    context = details.get("ctx", {})
    is_spoken = key == "text" and model in {Task, GroupText}
    default = _RIGHT.get("target_text" if is_spoken else key)
    right = context.get("right") or default or details["msg"].replace("Input", "it", 1)
    if details["type"] == "less_than" and default:
        right = f"give {context['lt'] - 1} or less"
    if details["type"] in _UNQUOTED and isinstance(details["input"], _UNQUOTED[details["type"]]):
        right += ", in quotes"
    return Problem(place, f"{names.get(key, key) or 'it'} {what}", right)


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return TASK_KEYS if model is Task else tuple(model.model_fields)
