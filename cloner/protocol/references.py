"""References as the workers get them: codes as a ``.npy`` of int32, recordings as 16-bit FLAC.

Recordings are mono, at 44,100 Hz, 30 s at most.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile as sf
from numpy.lib import format as npy

from cloner.audio import SAMPLE_RATE, Audio, Codes, check_codes, check_recording
from cloner.audio_bytes import decode_audio, encode_audio
from cloner.batch import CODEBOOK_SIZES, AudioFormat, ReferenceKind
from cloner.errors import BadReference, UsageError, some_of

MAX_SECONDS = 30
"""Length at which recordings are cut."""

MAX_FRAMES = 2600
"""Two minutes of codes; the model has 8,192 positions for reference, texts and speech."""


@dataclass(frozen=True)
class ReferenceData:
    """A packed reference; `key` is the hash of kind and data."""

    kind: ReferenceKind
    data: bytes
    text: str
    key: str


SUBMIT_AGAIN = "submit the batch's file again; only what is missing is spoken"


def lost_references(speakers: Sequence[str], where: str) -> UsageError:
    """The error of speakers whose references are not where they were kept."""
    some = "1 speaker" if len(speakers) == 1 else f"{len(speakers)} speakers"
    return UsageError(f"the references of {some} ({some_of(speakers, 5)}) {where}: {SUBMIT_AGAIN}")


def reference_key(kind: ReferenceKind, data: bytes) -> str:
    """The hash that identifies a packed reference, and by which a worker checks its bytes: 64 hexadecimal digits."""
    return hashlib.sha256(kind.encode() + data).hexdigest()


def codes_from_bytes(data: bytes) -> Codes:
    """Codes ``[codebooks, frames]`` of a packed reference. Raises `BadReference`."""
    return parse_codes(io.BytesIO(data))


def audio_from_bytes(data: bytes) -> Audio:
    """The recording ``[samples]`` at `SAMPLE_RATE` of a packed reference. Raises `BadReference`.

    The header is checked before memory is allocated for samples: 48 KB of Vorbis can hold 1.35 GB of samples.
    """
    try:
        audio = decode_audio(data, _check_header)
    except sf.SoundFileError as error:
        reason = error.error_string if isinstance(error, sf.LibsndfileError) else error
        raise BadReference(f"the reference's recording did not arrive whole ({reason})") from error
    check_recording(audio)
    return audio


def _check_header(sound: sf.SoundFile) -> None:
    """Raise `BadReference` unless the header is one that `pack_audio` writes."""
    arrived, needed = "the reference's recording arrived", "is needed"
    if sound.format != "FLAC":
        raise BadReference(f"{arrived} as {sound.format}, and FLAC {needed}")
    if sound.samplerate != SAMPLE_RATE:
        raise BadReference(f"{arrived} at {sound.samplerate} Hz, and {SAMPLE_RATE} Hz {needed}")
    if sound.channels != 1:
        raise BadReference(f"{arrived} with {sound.channels} channels, and 1 {needed}")
    if sound.frames > MAX_SECONDS * SAMPLE_RATE:
        raise BadReference(f"{arrived} with {sound.frames} samples, and {MAX_SECONDS * SAMPLE_RATE} is the most")


def parse_codes(file: BinaryIO) -> Codes:
    """Codes ``[codebooks, frames]`` of a ``.npy``. Raises `BadReference`.

    The header's shape is checked before memory is allocated for it.
    """
    try:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, fortran, dtype = read_header(file)
    except Exception as error:
        # For a damaged header, numpy raises any error of its tokenizer and parser.
        raise BadReference("the reference is not a .npy file of codes") from error
    if dtype.kind not in "iu":
        raise BadReference(f"the reference's codes are of type {dtype}, and whole numbers are needed")
    if len(shape) != 2 or shape[0] != len(CODEBOOK_SIZES) or not 1 <= shape[1] <= MAX_FRAMES:
        needed = f"[{len(CODEBOOK_SIZES)}, frames] with 1 to {MAX_FRAMES} frames"
        raise BadReference(f"the reference's codes have shape {list(shape)}, and {needed} is needed")
    size = shape[0] * shape[1] * dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise BadReference(f"the reference's codes are cut off: {len(data)} of {size} bytes are there")
    codes = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    check_codes(codes)
    return np.ascontiguousarray(codes, dtype=np.int32)


def pack_codes(codes: Codes) -> bytes:
    """``[codebooks, frames]`` as the bytes of a ``.npy``."""
    buffer = io.BytesIO()
    npy.write_array(buffer, codes.astype("<i4"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def pack_audio(audio: Audio) -> bytes:
    """``[samples]`` at `SAMPLE_RATE` as the bytes of a FLAC file."""
    return encode_audio(audio, SAMPLE_RATE, AudioFormat.FLAC)
