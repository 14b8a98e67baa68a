"""Types of the fields of a batch file's objects."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from cloner.validation import canonical_language, find_flaw, shown

_LANGUAGE = "give the code of a language, such as 'en', 'de' or 'pt-BR'"


def field_flaw(what: str, right: str | None = None) -> PydanticCustomError:
    """A validation error; `what` follows the key in its message, as in "is blank". By default, `schema.py` has what
    is right."""
    return PydanticCustomError("flaw", "{what}", {"what": what, "right": right})


def _name(text: str) -> str:
    if found := find_flaw(text, prose=False):
        raise field_flaw(*found)
    return text


def prose(text: str) -> str:
    """A text with line feeds as its line ends. Raises `field_flaw`'s error."""
    text = text.replace("\r\n", "\n")
    if found := find_flaw(text, prose=True):
        raise field_flaw(*found)
    return text


def _speaker_id(value: object) -> int | str:
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, int) and not isinstance(value, bool):
        _name(str(value))
        return value
    raise field_flaw(f"is {shown(value)}")


def _language(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise field_flaw(f"is {shown(value)}", _LANGUAGE)
    if (language := canonical_language(value)) is None:
        raise field_flaw(f"is {shown(value)}", right_language(value))
    return language


def right_language(value: str) -> str:
    """What would be right in the place of a text that is no language's code."""
    near = canonical_language(value.replace("_", "-"))
    return f"did you mean {near!r}?" if near else _LANGUAGE


SpeakerId = Annotated[int | str, PlainValidator(_speaker_id)]
FileName = Annotated[str, AfterValidator(_name)]
Prose = Annotated[str, AfterValidator(prose)]
Index = Annotated[int, Field(ge=0, lt=2**63)]
Language = Annotated[str | None, PlainValidator(_language)]
SegmentId = Annotated[str, PlainValidator(lambda value: str(_speaker_id(value)))]
