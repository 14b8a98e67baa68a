"""Audio files in memory: encoded from samples, and decoded.

WAV files, which a worker writes by the hundred a second, are encoded by numpy: libsndfile takes about five times as
long. Their bytes are the same. Other formats are libsndfile's.

libsndfile reads and writes a descriptor. With a Python file object it would call back into Python, where a signal
handler may run: the exception by which Celery ends a process would be lost in the callback, the process would go on,
and the file would be cut short.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import soundfile

from cloner.audio import Audio, Samples16
from cloner.batch import AudioFormat

MOST = np.float32(1 - 2**-24)
"""The largest float32 below 1: the largest 16-bit sample."""

BLOCK_SAMPLES = 2**16
"""Samples that libsndfile writes or reads at once. Its Vorbis encoder takes memory for them all from the stack: 60 s
end the process."""

MOST_WAV_SAMPLES = 2**31 - 64
"""Most samples of a WAV file, 13.5 hours at 44,100 Hz: its header has the bytes as 32 bits."""

ID3_FRAMES = {"artist": b"TPE1", "title": b"TIT2"}
"""The frames of an ID3 tag by libsndfile's names."""

WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


LIBSNDFILE = {
    AudioFormat.WAV: ("WAV", "PCM_16"),
    AudioFormat.FLAC: ("FLAC", "PCM_16"),
    AudioFormat.OGG: ("OGG", "VORBIS"),
    AudioFormat.OPUS: ("OGG", "OPUS"),
    AudioFormat.MP3: ("MP3", "MPEG_LAYER_III"),
}
"""libsndfile's format and subtype of each format."""


def encode_audio(audio: Audio | Samples16, sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Mono samples ``[samples]`` in -1..1, or of 16 bits, as a file of a format; of 16 bits where it is lossless.

    Samples beyond are clipped. Raises `OSError`, `soundfile.SoundFileError`.
    """
    return encode_blocks([audio], sample_rate, audio_format, {})


def blocks_of(audio: Audio | Samples16) -> Iterator[Audio | Samples16]:
    """The audio in blocks of at most `BLOCK_SAMPLES`."""
    return (audio[start : start + BLOCK_SAMPLES] for start in range(0, len(audio), BLOCK_SAMPLES))


def encode_blocks(
    blocks: Iterable[Audio | Samples16], sample_rate: int, audio_format: AudioFormat, tags: Mapping[str, str]
) -> bytes:
    """The same of audio in blocks, with tags: "artist" and "title", and their values. A WAV file gets
    none: programs that read it as samples alone may stumble over them."""
    if audio_format is AudioFormat.WAV:
        return _wav(blocks, sample_rate)
    container, subtype = LIBSNDFILE[audio_format]
    with _file_in_memory() as file:
        with soundfile.SoundFile(
            file, "w", sample_rate, channels=1, format=container, subtype=subtype, closefd=False
        ) as sound:
            if audio_format is not AudioFormat.MP3:
                for name, value in tags.items():
                    setattr(sound, name, value)
            for block in blocks:
                for part in blocks_of(block):
                    sound.write(part)
        os.lseek(file, 0, os.SEEK_SET)
        with open(file, "rb", closefd=False) as whole:
            return (_id3(tags) if tags and audio_format is AudioFormat.MP3 else b"") + whole.read()


def _id3(tags: Mapping[str, str]) -> bytes:
    """Tags as ID3v2.3, which precedes an MP3 file: libsndfile's own have UTF-8 where readers expect Latin-1."""
    texts = [(ID3_FRAMES[name], b"\x01" + value.encode("utf-16")) for name, value in tags.items()]
    frames = b"".join(struct.pack(">4sIH", name, len(text), 0) + text for name, text in texts)
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + frames


def to_16_bits(audio: Audio | Samples16) -> Samples16:
    """The samples that libsndfile writes: each is rounded to 32 bits, of which the upper 16 remain.

    Not a number becomes the least sample, as with libsndfile on x86-64.
    """
    if audio.dtype == np.int16:
        return audio.astype(np.int16, copy=False)
    scaled = np.fmax(audio, np.float32(-1))
    np.minimum(scaled, MOST, out=scaled)
    scaled *= np.float32(2**31)
    np.rint(scaled, out=scaled)
    return scaled.astype("<i4").view("<i2")[1::2].copy()  # a view would hold on to twice the memory


def _wav(blocks: Iterable[Audio | Samples16], sample_rate: int) -> bytes:
    """The bytes that libsndfile writes."""
    samples = [np.ascontiguousarray(to_16_bits(block)).data.cast("B") for block in blocks]
    size = sum(map(len, samples))
    channels, sample_bytes = 1, 2
    header = WAV_HEADER.pack(
        b"RIFF",
        WAV_HEADER.size - 8 + size,
        b"WAVE",
        b"fmt ",
        16,  # bytes of the format, which follows: PCM is 1
        1,
        channels,
        sample_rate,
        sample_rate * channels * sample_bytes,
        channels * sample_bytes,
        8 * sample_bytes,
        b"data",
        size,
    )
    return b"".join([header, *samples])


def decode_audio(data: bytes, check: Callable[[soundfile.SoundFile], None]) -> Audio:
    """The samples ``[samples]``, or ``[samples, channels]``, of a file.

    `check` gets the file before memory is allocated for its samples: its header is read. Raises what `check` raises,
    `OSError`, `soundfile.SoundFileError`.
    """
    with open_audio(data) as sound:
        check(sound)
        audio: Audio = sound.read(dtype="float32")
        return audio


@contextmanager
def open_audio(data: bytes) -> Iterator[soundfile.SoundFile]:
    """A file's bytes, opened to read samples. Raises `OSError`, `soundfile.SoundFileError`."""
    with _file_in_memory() as file:
        with open(file, "wb", closefd=False) as whole:
            whole.write(data)
        os.lseek(file, 0, os.SEEK_SET)
        with soundfile.SoundFile(file, closefd=False) as sound:
            yield sound


def read_mono(sound: soundfile.SoundFile, limit: int) -> Audio:
    """At most `limit` samples ``[samples]``, the mean of the channels. Read in blocks: a header may claim more samples
    than the file has."""
    blocks = [np.zeros(0, np.float32)]
    while limit > 0:
        block = sound.read(min(limit, max(1, BLOCK_SAMPLES // sound.channels)), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block.mean(axis=1))
        limit -= len(block)
    return np.concatenate(blocks)


@contextmanager
def _file_in_memory() -> Iterator[int]:
    """A descriptor of an empty file, which is gone when it is closed; where there is no Linux, on the disk."""
    if sys.platform == "linux":
        file = os.memfd_create("audio")
        try:
            yield file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryFile() as on_disk:
            yield on_disk.fileno()
