"""What is compared of a take that was generated again, and what is noted of the worker that generated it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloner.audio import SAMPLE_RATE, Audio
from cloner.audio_bytes import encode_audio
from cloner.batch import AudioFormat, Generation
from cloner.cli.comparison import compare
from cloner.cli.reproduction import Reproduction, generation_of, spec_like
from cloner.errors import NotReproduced
from cloner.output.audio_files import OutputRoot
from cloner.output.environments import ENVIRONMENTS, Environment, environment_at, note_environment
from cloner.output.kept_take import KeptTake
from cloner.output.takes import Takes
from cloner.settings import Settings
from launcher.gpus import GB, Gpu
from tests.support.manifests import manifest
from tests.support.records import segment_result
from tests.support.speech import speech

SPEECH = speech(SAMPLE_RATE, seed=3)

FORMATS = {AudioFormat.WAV: SAMPLE_RATE, AudioFormat.FLAC: SAMPLE_RATE, AudioFormat.OGG: SAMPLE_RATE}
FORMATS |= {AudioFormat.OPUS: 48_000, AudioFormat.MP3: SAMPLE_RATE}

ENVIRONMENT = Environment(
    engine="batched",
    fingerprint="f" * 32,
    codec="tiny-1",
    device="NVIDIA H100",
    threads=0,
    slots=64,
    deterministic=False,
    warning="",
    versions={"torch": "2.9.0"},
)


def kept_take(root: Path, audio: Audio, audio_format: AudioFormat = AudioFormat.WAV) -> KeptTake:
    """A take with its file."""
    output = f"0.{audio_format}"
    written = OutputRoot(root).write_audio(output, audio, FORMATS[audio_format])
    line = segment_result(0, output=output, size=written.size, mtime_ns=written.mtime_ns, digest=written.digest)
    speaker = manifest().speakers[0]
    return KeptTake(manifest(), speaker, speaker.segments[0], line, ENVIRONMENT)


def with_noise(steps: float) -> Audio:
    """The speech, with noise of at most so many steps of 16 bits."""
    noise: Audio = np.random.default_rng(1).uniform(-steps, steps, len(SPEECH)).astype(np.float32)
    return SPEECH + noise / np.float32(2**15)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_step_of_16_bits_is_allowed_and_another_sound_is_not(tmp_path: Path, audio_format: AudioFormat) -> None:
    take = kept_take(tmp_path, SPEECH, audio_format)

    def same(audio: Audio) -> bool:
        data = encode_audio(audio, FORMATS[audio_format], audio_format)
        return compare(take, take.line.frames, data, OutputRoot(tmp_path))[0]

    assert same(SPEECH)
    assert same(with_noise(0.5))
    assert not same(speech(SAMPLE_RATE, seed=4)[: len(SPEECH)])
    assert not same(SPEECH[:-2000])
    lossless = audio_format in {AudioFormat.WAV, AudioFormat.FLAC}
    assert same(with_noise(3)) is not lossless


def test_other_codes_are_named_before_samples_are_compared(tmp_path: Path) -> None:
    take = kept_take(tmp_path, SPEECH)
    data = encode_audio(with_noise(0.5), SAMPLE_RATE, AudioFormat.WAV)
    assert compare(take, 21, data, OutputRoot(tmp_path)) == (False, "it has 21 frames of codes, and 0.wav has 20")


def test_a_file_that_was_replaced_is_found_among_the_takes_and_one_that_is_gone_is_compared_by_its_digest(
    tmp_path: Path,
) -> None:
    take, outputs = kept_take(tmp_path, SPEECH), OutputRoot(tmp_path)
    same, other = (encode_audio(audio, SAMPLE_RATE, AudioFormat.WAV) for audio in (SPEECH, with_noise(0.5)))
    Takes(outputs, "20260101-000000-aaaaaa").keep_replaced("0.wav", take.line.key, take.line.digest)
    (tmp_path / "0.wav").unlink()
    (tmp_path / "0.wav").write_bytes(b"another")
    is_same, compared = compare(take, 20, other, outputs)
    assert is_same
    assert ".cloner/20260101-000000-aaaaaa/takes/k." in compared
    next(tmp_path.rglob("takes/*")).unlink()
    is_same, compared = compare(take, 20, same, outputs)
    assert is_same
    assert compared.endswith(
        f"that were written as 0.wav; no file under {tmp_path} is 0.wav as it was written, any more"
    )
    is_same, compared = compare(take, 20, other, outputs)
    assert not is_same
    assert "no file under" in compared


def test_a_damaged_file_of_the_same_size_and_time_is_not_the_one_that_was_written(tmp_path: Path) -> None:
    take, outputs = kept_take(tmp_path, SPEECH), OutputRoot(tmp_path)
    path = tmp_path / "0.wav"
    same = path.read_bytes()
    path.write_bytes(bytes(len(same)))
    os.utime(path, ns=(take.line.mtime_ns, take.line.mtime_ns))
    is_same, compared = compare(take, 20, same, outputs)
    assert is_same
    assert "is 0.wav as it was written, any more" in compared
    other = encode_audio(with_noise(0.5), SAMPLE_RATE, AudioFormat.WAV)
    is_same, compared = compare(take, 20, other, outputs)
    assert not is_same
    assert "has other bytes" in compared
    # A line without a digest, as of version 0.1, does not tell whether the file is the one that was written.
    undigested = replace(take, line=replace(take.line, digest=""))
    with pytest.raises(NotReproduced, match=r"segment 0 of batch b cannot be compared: 0\.wav cannot be read as audio"):
        compare(undigested, 20, other, outputs)


def test_a_file_of_an_unknown_format_is_a_sentence(tmp_path: Path) -> None:
    take = kept_take(tmp_path, SPEECH)
    other = replace(take, line=replace(take.line, output="0.aiff"))
    with pytest.raises(NotReproduced, match=r"its file 0\.aiff has the ending of no format .*wav, flac"):
        other.check_options()


def test_a_take_that_is_longer_than_its_batch_allows_gets_as_many_frames_as_it_has(tmp_path: Path) -> None:
    take = kept_take(tmp_path, SPEECH)

    def limit(frames: int, generation: Generation) -> int:
        batch = take.batch.model_copy(update={"generation": generation})
        return generation_of(replace(take, batch=batch, line=replace(take.line, frames=frames))).max_new_tokens

    assert limit(20, Generation(max_new_tokens=10)) == 20
    assert limit(20, Generation(max_new_tokens=30)) == 30
    assert limit(20_000, Generation(max_new_tokens=10)) == 8192  # of all its pieces together
    assert limit(20, Generation(max_new_tokens=10, min_new_tokens=10)) == 10


def test_the_card_with_the_most_free_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [("NVIDIA H100", 3), ("NVIDIA H100", 70), ("NVIDIA L4", 80), ("NVIDIA H100", 70)]
    gpus = [Gpu(index, name, f"GPU-{index}", 80 * GB, size * GB) for index, (name, size) in enumerate(free)]
    monkeypatch.setattr("cloner.cli.reproduction.find_gpus", lambda **_: gpus)
    assert spec_like(ENVIRONMENT, Settings()).pin == "GPU-1"
    assert spec_like(None, Settings()).pin == "GPU-2"
    assert spec_like(ENVIRONMENT.model_copy(update={"threads": 2, "device": "AMD EPYC"}), Settings()).pin == ""


def test_what_differs_is_named_with_both_values() -> None:
    now = ENVIRONMENT.model_copy(
        update={"device": "AMD EPYC", "slots": 4, "codec": "tiny-2", "versions": {"torch": "2.8.0", "soxr": "1.1.0"}}
    )
    assert ENVIRONMENT.differences(now) == [
        'device ("NVIDIA H100" then, "AMD EPYC" now)',
        "slots (64 then, 4 now)",
        "soxr (none then, 1.1.0 now)",
        "torch (2.9.0 then, 2.8.0 now)",
    ]
    assert not ENVIRONMENT.differences(ENVIRONMENT)


def test_the_cause_is_named_as_far_as_it_is_known() -> None:
    found = Reproduction(b"", False, "", [], ENVIRONMENT)
    assert "without CLONER_DETERMINISTIC" in found.explanation
    assert "slots (1 then, 2 now)" in replace(found, different=["slots (1 then, 2 now)"]).explanation
    for engine in ("fake", "upstream"):  # their choices do not depend on what is spoken beside a segment
        alone = ENVIRONMENT.model_copy(update={"engine": engine})
        assert "CLONER_DETERMINISTIC" not in replace(found, environment=alone).explanation
    cut = replace(found, cut_at=30, different=["slots (1 then, 2 now)"]).explanation
    assert cut.startswith("it had not ended by itself after 30 frames, and was cut; what differs: slots")
    assert "not noted" in replace(found, environment=None).explanation
    fixed = ENVIRONMENT.model_copy(update={"deterministic": True})
    assert "all that is noted is the same: checkpoint" in replace(found, environment=fixed).explanation


def test_a_take_finds_what_its_worker_generated_with_when_its_file_was_written(tmp_path: Path) -> None:
    outputs, more = OutputRoot(tmp_path), ENVIRONMENT.model_copy(update={"slots": 128})
    note_environment(outputs, "a", ENVIRONMENT)
    note_environment(outputs, "a", ENVIRONMENT)
    path = tmp_path / ".cloner" / ENVIRONMENTS / "a.ndjson"
    (first,) = path.read_text().splitlines()
    first_ns = int(first[1:].partition(",")[0])
    with path.open("a") as file:
        file.write('[5,{"torn')  # by a process that died
    os.utime(path, ns=(first_ns, first_ns))
    note_environment(outputs, "a", more)
    second_ns = int(path.read_text().splitlines()[-1][1:].partition(",")[0])
    assert second_ns > first_ns
    assert environment_at(outputs, "a", first_ns - 1) is None
    assert environment_at(outputs, "a", first_ns) == ENVIRONMENT
    assert environment_at(outputs, "a", second_ns) == more
    assert environment_at(outputs, "b", second_ns) is None
