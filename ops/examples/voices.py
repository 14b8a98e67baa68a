"""Make the voices of the examples in the folder `voices` beside this file: tones, and codes that are random.

    python -m ops.examples.voices

Recordings lie as fish-speech has them, ``voices/<speaker>/*.wav`` with a transcript ``.lab`` of the same name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cloner.batch import CODEBOOK_SIZES
from ops.scripts.demo import write_recording

FOLDER = Path(__file__).parent / "voices"
LENGTH_S = 10
FRAMES = 215
TRANSCRIPT = (
    "The morning train was late again, so we walked along the river, and by the time we reached the old bridge the sun"
    " had come out behind the hills."
)


def main() -> None:
    """Write two recordings with their transcripts, and the codes of a third voice."""
    for speaker, pitch_hz in (("anna", 210.0), ("ben", 120.0)):
        folder = FOLDER / speaker
        folder.mkdir(parents=True, exist_ok=True)
        write_recording(folder / f"{speaker}.wav", pitch_hz, LENGTH_S)
        (folder / f"{speaker}.lab").write_text(TRANSCRIPT + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, FRAMES) for size in CODEBOOK_SIZES])
    np.save(FOLDER / "carla.npy", codes.astype(np.int32))


if __name__ == "__main__":
    main()
