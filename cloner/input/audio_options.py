"""What a batch, or the command that reads it, asks for of its audio."""

from __future__ import annotations

from collections.abc import Mapping

from cloner.batch import AudioOptions
from cloner.input.problems import Problems
from cloner.input.schema import checked, repeated_keys


def read_audio_options(values: object, given: Mapping[str, object], problems: Problems) -> AudioOptions:
    """The options that `values`, a batch file's ``audio``, hold, with those `given` besides in their place.

    The defaults, and more problems, where any is wrong.
    """
    if isinstance(values, dict):
        problems.extend(repeated_keys(values, "audio"))
        values = {**values, **given}
    found = checked(AudioOptions, given if values is None else values, "audio")
    if isinstance(found, AudioOptions):
        return found
    problems.extend(found)
    return AudioOptions()
