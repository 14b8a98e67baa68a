"""Content keys: one hash of all that a segment's audio depends on.

The checkpoint is part of it by its fingerprint, so that a segment is generated again where the model is another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cloner.batch import NOT_IN_CONTENT_KEY, PIECES, AudioFormat, SpeechOptions
from cloner.protocol.messages import SpeakerRow
from cloner.protocol.rows import SegmentRow


class ContentKeys:
    """Makes the content keys of one batch's segments, for one engine and one checkpoint.

    Two keys are equal if, and only if, the same audio would be generated. A key is made of

    - the batch's parameters (`Generation` without `NOT_IN_CONTENT_KEY`), its engine and its checkpoint; of the
      greatest number of frames, only whether all segments get that many, as other segments fail if they need more,
    - the segment's text, its seed, and its speaker's reference with the transcript,
    - how a text is split and joined (`PIECES`), if it is long enough for that; and its language's rules for the ends of
      sentences, if it is split there and that language has rules of its own,
    - what is made of the sound (`AudioOptions`), if anything is in the output's format.

    The segment's index and the name of its file are in no key: what looks for a key looks for the name's ending, too.
    """

    def __init__(self, options: SpeechOptions) -> None:
        generation = options.generation
        heard = generation.model_dump(mode="json", exclude=NOT_IN_CONTENT_KEY)
        # They need numpy, and not all that import this module do.
        from cloner.audio import effects, format_of
        from cloner.text.length import is_long, is_split
        from cloner.text.splitting import own_rules

        self._is_split, self._is_long, self._own_rules = is_split, is_long, own_rules
        self._effects = {
            audio_format: found for audio_format in AudioFormat if (found := effects(options.audio, audio_format))
        }
        self._format_of = format_of
        common = [heard, generation.fixed_length, options.engine, options.fingerprint]
        self._common = hashlib.sha256(json.dumps(common).encode())
        self._generation = generation
        self._pieces = generation.model_dump(mode="json", include=PIECES)

    def of(self, speaker: SpeakerRow, segment: SegmentRow) -> str:
        """The key of a speaker's segment, 64 hexadecimal digits."""
        index, text, output, seed = segment
        reference = speaker.reference
        key = self._common.copy()
        parts = [reference.kind, reference.digest, reference.text, seed, text]
        if self._is_split(text, self._generation):
            parts.append(self._pieces)
            if self._is_long(text, self._generation) and (rules := self._own_rules(speaker.language_of(index))):
                parts.append(rules)
        if self._effects and (effects := self._effects.get(self._format_of(output))):
            parts.append(effects)
        key.update(json.dumps(parts).encode())
        return key.hexdigest()


def wanted_outputs(rows: Iterable[SpeakerRow], options: SpeechOptions) -> dict[str, str]:
    """Output -> content key, of all segments of some speakers."""
    keys = ContentKeys(options)
    return {row.output: keys.of(speaker, row) for speaker in rows for row in speaker.segments}


FINGERPRINTED_FILES = (
    "config.json",
    "model.pth",
    "tokenizer.tiktoken",
    "special_tokens.json",
    "codec.pth",
    "codec.json",
)
"""The files of a checkpoint that its speech depends on."""

NO_CHECKPOINT = "none"
"""The fingerprint of a folder without a checkpoint, and of an engine that loads none."""

BLOCK_BYTES = 65_536

SAMPLED_BLOCKS = 64
"""Blocks that are read of a file with more than so many."""


def fingerprint(directory: Path) -> str:
    """Identify the content of a checkpoint folder: 32 hexadecimal digits; `NO_CHECKPOINT` if it has none of the files.

    Small files are read whole. Of weights, the size, the first and the last block and others spread over the file are
    read: 4 MiB of 3.6 GB, which takes milliseconds. That tells checkpoints apart: training changes all weights, another
    architecture has another size, and the last block of a ``.pth`` is the directory of a zip file, with a checksum of
    every tensor. It does not protect against a checkpoint that is made to look like another.
    """
    whole = hashlib.sha256()
    found = False
    for name in FINGERPRINTED_FILES:
        path = directory / name
        if not path.is_file():
            continue  # reading a pipe would block, and a device has no end
        try:
            status = path.stat()
            part = _sampled(path.resolve(), status.st_size, status.st_mtime_ns)
        except OSError:
            continue  # missing or unreadable: the engine reports it when it loads
        whole.update(name.encode() + part)
        found = True
    return whole.hexdigest()[:32] if found else NO_CHECKPOINT


@cache
def _sampled(path: Path, size: int, _changed_ns: int) -> bytes:
    """A hash of the file as of its last change; cached, as a launcher computes it once for each worker."""
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= BLOCK_BYTES * SAMPLED_BLOCKS:
            digest.update(file.read())
        else:
            for number in range(SAMPLED_BLOCKS):
                file.seek((size - BLOCK_BYTES) * number // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.digest()
