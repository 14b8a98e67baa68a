"""Turning a reference recording into codes, on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cloner.batch import Reference, ReferenceKind
from cloner.engine import encode_recordings
from cloner.errors import UsageError
from cloner.input.references import load_reference
from cloner.protocol.references import audio_from_bytes
from cloner.settings import Settings


def encode_file(recording: Path, output: Path, settings: Settings) -> int:
    """Write the codes of `recording` as int32 ``.npy``, ``[codebooks, frames]``; returns the number of frames.

    Goes the way that a recording in a batch goes, so the codes are the same. Raises `BadReference`, `LoadFailed`.
    """
    if output.suffix != ".npy":
        raise UsageError(f"{output}: codes are kept as .npy; name the output so, as in -o {output.with_suffix('.npy')}")
    data = load_reference(Reference(ReferenceKind.AUDIO, (recording,), text=""))
    (codes,) = encode_recordings(settings, [audio_from_bytes(data.data)])
    part = output.with_suffix(".npy.part")
    try:
        with part.open("wb") as file:
            np.save(file, codes.astype(np.int32), allow_pickle=False)
        part.replace(output)
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written ({error.strerror}); name a file in a folder that is there"
        ) from error
    return int(codes.shape[1])
