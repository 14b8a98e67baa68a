"""The command `encode`: a reference recording becomes codes, on this machine."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from cloner.errors import UsageError
from cloner.settings import Settings, load_settings


def encode(
    audio: Annotated[Path, typer.Argument(help="A recording: any format, rate and number of channels.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npy file of codes to write.")],
) -> None:
    """Turn a reference recording into codes."""
    from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE

    frames = _encode_file(audio, output, load_settings())
    print(f"{output}: {frames} frames, {frames * FRAME_SAMPLES / SAMPLE_RATE:.1f} s", file=sys.stderr)


def _encode_file(recording: Path, output: Path, settings: Settings) -> int:
    """Write the codes of `recording` as int32 ``.npy``, ``[codebooks, frames]``; returns the number of frames.

    The steps are those of a recording in a batch, so the codes are the same. Raises `UsageError`, `BadReference`,
    `LoadFailed`.
    """
    import numpy as np

    from cloner.batch import ReferenceKind
    from cloner.engine import encode_recordings
    from cloner.input.problems import Problems
    from cloner.input.references import judged, load_reference, measure_file
    from cloner.output.atomic_file import FileAt, write_and_rename
    from cloner.protocol.references import audio_from_bytes

    if output.suffix != ".npy":
        raise UsageError(f"{output}: codes are kept as .npy; name the output so, as in -o {output.with_suffix('.npy')}")
    reference = judged(ReferenceKind.AUDIO, (recording,), (measure_file(ReferenceKind.AUDIO, recording),), "")
    problems = Problems(str(recording.parent))
    for doubt in reference.doubts:
        problems.warn(doubt)
    data = load_reference(reference)
    (codes,) = encode_recordings(settings, [audio_from_bytes(data.data)])
    file = io.BytesIO()
    np.save(file, codes.astype(np.int32), allow_pickle=False)
    try:
        write_and_rename([file.getvalue()], FileAt(output.with_suffix(".npy.part")), FileAt(output))
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written ({error.strerror}); name a file in a folder that is there"
        ) from error
    return int(codes.shape[1])
