"""Rows of segments and of takes, as they travel and as they are kept: an array of JSON each, not an object.

Pydantic's own schema of a `NamedTuple` also accepts an object, and collects an error for each key that is no field's.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import GetCoreSchemaHandler, StringConstraints
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from cloner.protocol.fields import Count, Index, Output, Text

ReplacedDigest = Annotated[str, StringConstraints(pattern="^([0-9a-f]{32})?$")]


class SegmentRow(NamedTuple):
    """A segment of a speaker."""

    segment: int
    """The segment's index."""
    text: str
    output: str
    """Audio file, relative to the output root."""
    seed: int

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(cls._make, handler(tuple[Index, Text, Output, Index]))


class TakeRow(NamedTuple):
    """A take of a segment."""

    segment: int
    """The segment's index."""
    number: int
    """The take's number, from 1."""
    seed: int
    """The take's seed."""
    replaces: str
    """Digest of the audio file that it replaces; empty if there is none."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(cls._make, handler(tuple[Index, Count, Index, ReplacedDigest]))
