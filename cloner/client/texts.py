"""What is noteworthy of a batch before anything runs: texts that are split or cannot be spoken, doubtful references."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cloner.batch import Batch, Generation, ReferenceKind, Speaker
from cloner.errors import Problem
from cloner.input.problems import Problems
from cloner.input.references import codes_frames
from cloner.protocol.references import MAX_FRAMES
from cloner.text.length import (
    FRAMES_PER_LONG_CHARACTER,
    estimated_tokens,
    is_long,
    is_speakable,
    is_split,
    piece_frames,
)
from cloner.validation import shown

MODEL_TOKENS = 6144
"""Most tokens of a prompt: openaudio-s1-mini has 8,192 positions, of which 2,048 are kept for the segment's frames."""


def split_segments(batch: Batch) -> Iterator[int]:
    """The segments whose texts are generated in pieces because they are long."""
    for speaker in batch.speakers:
        yield from (segment.index for segment in speaker.segments if is_long(segment.text, batch.generation))


def unspeakable_texts(batch: Batch) -> Iterator[Problem]:
    """The texts that cannot be spoken, and would fail; others of the batch are not affected. Raises `BadReference`."""
    for speaker in batch.speakers:
        for segment in speaker.segments:
            where = f"segment {segment.index} of speaker {shown(speaker.id)}"
            if not is_speakable(segment.text):
                what = f"its text {shown(segment.text)} has no letter and no digit"
                yield Problem(where, what, "write what is to be spoken, or leave it out")
            elif (tokens := _prompt_tokens(speaker, segment.text, batch.generation)) > MODEL_TOKENS:
                what = f"reference and text have about {tokens:.0f} tokens, and the model takes {MODEL_TOKENS}"
                yield Problem(where, what, "use a shorter reference, or split the text")


def refuse_doubtful(batch: Batch) -> None:
    """Raise `BadBatch` if a text of the batch cannot be spoken, or something may be wrong with a reference."""
    problems = Problems(str(batch.source))
    problems.extend(unspeakable_texts(batch))
    problems.extend(_reference_doubts(batch))
    problems.raise_any()


def warn_of_references(batch: Batch) -> None:
    """Log what may be wrong with the references of the batch."""
    problems = Problems(str(batch.source))
    for doubt in _reference_doubts(batch):
        problems.warn(doubt)
    problems.raise_any()


def _reference_doubts(batch: Batch) -> Iterator[Problem]:
    for speaker in batch.speakers:
        for doubt in speaker.reference.doubts:
            yield replace(doubt, where=f"reference {doubt.where} of speaker {shown(speaker.id)}")


def _prompt_tokens(speaker: Speaker, text: str, generation: Generation) -> float:
    """Tokens of the prompt of a text, or of a piece of it. Frames of a recording, 650 at most, are not counted."""
    reference = speaker.reference
    most = MAX_FRAMES + len(reference.text) + len(text)
    if most <= MODEL_TOKENS:  # nearly always: nothing is read
        return most
    tokens = estimated_tokens(text)
    if is_split(text, generation):
        tokens = min(tokens, piece_frames(generation) / FRAMES_PER_LONG_CHARACTER)
    frames = codes_frames(reference.paths[0]) if reference.kind is ReferenceKind.CODES else 0
    return frames + estimated_tokens(reference.text) + tokens
