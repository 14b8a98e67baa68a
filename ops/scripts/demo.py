"""The main job on a small scale: six speakers, 46 texts, a checkpoint of random weights, all in one folder.

``make demo`` runs it with the folder as its argument. The recordings are tones and the generated voices are noise;
everything else is what a real batch uses.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
import yaml

CLONER = [str(Path(sys.executable).with_name("cloner"))]
SPEAKERS = {"anna": 8, "ben": 8, "carla": 8, "dora": 7, "emil": 8, "finn": 7}
RATE = 44_100
RECORDING_S = 3


def main(folder: Path) -> int:
    """Create what is missing in `folder` and run the batch; return the exit status of ``cloner run``."""
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "tiny-random"
    if not checkpoint.exists():
        subprocess.run([*CLONER, "checkpoint", "init", str(checkpoint), "--preset", "tiny"], check=True)
    batch = write_batch(folder)
    return subprocess.run([*CLONER, "run", str(batch), "--out", str(folder / "out")], check=False).returncode


def write_batch(folder: Path) -> Path:
    """Write the batch file and a recording for each speaker; return the batch file's path."""
    speakers = []
    for number, (name, texts) in enumerate(SPEAKERS.items()):
        write_recording(folder / f"{name}.wav", pitch_hz=110 * 1.2**number)
        speakers.append(
            {
                "id": name,
                "reference": {"audio": f"{name}.wav", "text": f"This is how {name} speaks."},
                "texts": [f"This is sentence {text + 1} of {texts}, spoken by {name}." for text in range(texts)],
            }
        )
    batch = folder / "batch.yaml"
    # With random weights, the end token may be sampled at once, or never.
    generation = {"min_new_tokens": 24, "max_new_tokens": 24}
    document = {"checkpoint_dir": "tiny-random", "generation": generation, "speakers": speakers}
    batch.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return batch


def write_recording(path: Path, pitch_hz: float, length_s: int = RECORDING_S) -> None:
    """Write a tone with overtones whose volume varies like syllables."""
    seconds = np.arange(length_s * RATE) / RATE
    overtones = sum(np.sin(2 * np.pi * pitch_hz * n * seconds) / n for n in range(1, 6))
    soundfile.write(path, 0.2 * overtones * np.sin(2 * np.pi * 2 * seconds) ** 2, RATE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
