"""Real recordings of four people in five languages as references, through the real codec."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.batch import CODEBOOK_SIZES
from tests.support.processes import run_cloner
from tests.support.voices import find_voices

pytestmark = pytest.mark.slow

TEXTS = ("The first sentence.", "And the second one.")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fish-speech's own layout: a folder a speaker, each recording with its transcript."""
    folder = tmp_path_factory.mktemp("references")
    for speaker, clips in find_voices().items():
        (folder / speaker).mkdir()
        for number, clip in enumerate(clips):
            (folder / speaker / f"{number}.wav").write_bytes(clip.read_bytes())
            (folder / speaker / f"{number}.lab").write_text(clip.stem.replace("-", " "))
    return folder


def test_a_table_and_a_folder_of_real_voices_become_speech(
    references: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["speaker_id", "text"])
        rows.writerows([speaker.name, text] for speaker in sorted(references.iterdir()) for text in TEXTS)
    env = {"CLONER_CHECKPOINT_DIR": str(tiny_checkpoint)}
    ran = run_cloner(
        "run", "texts.csv", "--references", str(references), "--out", "out", "--workers", "2", cwd=tmp_path, env=env
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["generated"] == 10
    assert result["results"]["3"] == "es/0002.wav"
    for output in result["results"].values():
        assert soundfile.info(tmp_path / "out" / output).samplerate == 44_100


def test_encode_turns_every_voice_into_its_own_codes(references: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    codes = {}
    for speaker in ("en", "it"):
        clip = references / speaker / "0.wav"
        stereo = tmp_path / f"{speaker}.flac"
        audio, rate = soundfile.read(clip)
        soundfile.write(stereo, np.stack([audio, audio], axis=1), rate)
        env = {"CLONER_CHECKPOINT_DIR": str(tiny_checkpoint)}
        ran = run_cloner("encode", str(stereo), "-o", f"{speaker}.npy", cwd=tmp_path, env=env)
        assert ran.returncode == 0, ran.stderr
        codes[speaker] = np.load(tmp_path / f"{speaker}.npy", allow_pickle=False)
        frames = soundfile.info(clip).duration * 44_100 / 2048
        assert codes[speaker].shape[0] == len(CODEBOOK_SIZES)
        assert codes[speaker].shape[1] == pytest.approx(frames, abs=1.01)
        assert codes[speaker].dtype == np.int32
        assert (codes[speaker] >= 0).all()
        assert (codes[speaker] < np.array(CODEBOOK_SIZES)[:, None]).all()
    shortest = min(code.shape[1] for code in codes.values())
    assert (codes["en"][:, :shortest] != codes["it"][:, :shortest]).any(axis=1).all()


def test_a_recording_that_is_none_is_a_sentence(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"not a recording")
    env = {"CLONER_CHECKPOINT_DIR": str(tiny_checkpoint)}
    ran = run_cloner("encode", "noise.wav", "-o", "noise.npy", cwd=tmp_path, env=env)
    assert ran.returncode == 1
    assert ran.stderr.startswith("'noise.wav': it cannot be read as audio")
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "noise.npy").exists()
