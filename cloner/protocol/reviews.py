"""What travels between the collector and the reviewers: a take's samples, and what the models hear in them."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Annotated, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError

from cloner.audio import Audio
from cloner.audio_bytes import decode_audio, encode_audio
from cloner.batch import AudioFormat
from cloner.errors import WrongSchema
from cloner.protocol.fields import BatchId, Count, Language, Text
from cloner.protocol.messages import Wire
from cloner.protocol.results import Line
from cloner.validation import first_error

REVIEW_RATE = 16_000
"""Samples a second of what reviewers get: that of all their models."""

LONGEST_S = 240.0
"""Seconds of a take that reviewers hear: of noise, 14 MB as a message, and 16 MB is the most. The words of a longer one
are compared with the beginning of its text."""

EMBEDDING_SIZE = 256
"""Numbers of the embedding of a voice."""

LENGTH_ERROR = 0.01
"""By how much an embedding's length may differ from 1."""


def _check_embedding(text: str) -> str:
    unpack_embedding(text)
    return text


Score = Annotated[float, Field(allow_inf_nan=False)]


class ReviewRequest(Wire):
    """A take, or a speaker's reference, that is to be heard."""

    batch_id: BatchId
    what: Line
    """Segment and number of the take, as in "12.1", or "reference" and the start of its digest, for logs."""
    text: Text | Literal[""] = ""
    """What should be said; empty for a reference, whose words are compared with nothing."""
    language: Language = ""
    """The text's, empty if it is not known."""
    audio: str
    """What `pack_audio` makes."""
    part: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How much of the take `audio` has, from its beginning."""


class VoiceRow(Wire):
    """The voice in a take or a reference."""

    embedding: Annotated[str, AfterValidator(_check_embedding)]
    """What `pack_embedding` makes."""
    speech_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds of speech that it is of, without silences."""


class WordsRow(Wire):
    """How what is heard differs from the text; units are words, or characters of a script without spaces."""

    units: Count
    errors: Count
    longest_run: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    surprise: Score | None = None
    heard: Line = ""


class ReviewAnswer(Wire):
    """What the models hear in the samples of a request. None where they cannot say, and all if there is an error."""

    voice: VoiceRow | None = None
    naturalness: Score | None = None
    words: WordsRow | None = None
    unknown_language: bool = False
    """Whether there are no words because the recogniser does not know the text's language."""
    error: Line = ""
    """Why these samples could not be heard, if they could not."""


def read_request(message: object) -> ReviewRequest:
    """The message as typed values. Raises `WrongSchema` if it is no request of this form."""
    try:
        return ReviewRequest.model_validate(message)
    except ValidationError as error:
        raise WrongSchema(f"a request for a review cannot be read: {first_error(error)}") from None


def pack_audio(samples: Audio, rate: int) -> str:
    """Mono ``[samples]`` of `rate` samples a second as base64 of a FLAC file of 16 bits at `REVIEW_RATE`.

    Samples beyond -1..1 are clipped, and those that are no numbers become -1. Raises `OSError`,
    `soundfile.SoundFileError`.
    """
    finite = np.nan_to_num(np.clip(samples, -1, 1), nan=-1.0)  # a filter would spread what is no number
    resampled = soxr.resample(finite, rate, REVIEW_RATE)
    return b64encode(encode_audio(resampled, REVIEW_RATE, AudioFormat.FLAC)).decode()


def unpack_audio(packed: str) -> Audio:
    """The samples that `pack_audio` packed. Raises `WrongSchema` if they are not of that form, or last longer than
    `LONGEST_S`."""
    try:
        return decode_audio(b64decode(packed, validate=True), _check_sound)
    except (binascii.Error, ValueError, soundfile.SoundFileError, OSError) as error:
        raise WrongSchema(f"the samples are no FLAC file in base64 ({str(error).splitlines()[0]})") from None


def _check_sound(sound: soundfile.SoundFile) -> None:
    if (sound.format, sound.channels, sound.samplerate) != ("FLAC", 1, REVIEW_RATE):
        found = f"{sound.format} with {sound.channels} channels at {sound.samplerate} Hz"
        raise WrongSchema(f"the samples are {found}, and mono FLAC at {REVIEW_RATE} Hz is heard")
    if sound.frames > LONGEST_S * REVIEW_RATE:
        raise WrongSchema(f"the samples last {sound.frames / REVIEW_RATE:.1f} s, and {LONGEST_S:g} s at most are heard")


def pack_embedding(embedding: NDArray[np.float32]) -> str:
    """A voice's embedding, ``[EMBEDDING_SIZE]`` of length 1, as base64 of its little-endian 32-bit numbers."""
    return b64encode(embedding.astype("<f4").tobytes()).decode()


def unpack_embedding(packed: str) -> NDArray[np.float32]:
    """The embedding that `pack_embedding` packed. Raises `ValueError`."""
    data = b64decode(packed, validate=True)
    if len(data) != 4 * EMBEDDING_SIZE:
        raise ValueError(f"it has {len(data)} bytes, and {4 * EMBEDDING_SIZE} are needed")
    embedding = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(embedding).all():
        raise ValueError("it has values that are not numbers")
    length = float(np.linalg.norm(embedding.astype(np.float64)))
    if abs(length - 1) > LENGTH_ERROR:
        raise ValueError(f"its length is {length:g}, and 1 is needed")
    return embedding
