"""The speed of this box, kept from run to run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cloner.cli.box_speed import at_known_speed, keep_speed
from cloner.state.registry import WorkerInfo
from tests.support.workers import worker_info

CPU = [worker_info(0), worker_info(1)]


def on_gpu(index: int, card: int) -> WorkerInfo:
    return replace(worker_info(index), name=f"GPU-{card}.{index}@a", device=f"cuda:{card}", gpu="RTX 4090")


def spoke(worker: WorkerInfo, audio_s: float, busy_s: float) -> WorkerInfo:
    return replace(worker, spoken_s=audio_s, busy_s=busy_s)


def speeds(*workers: WorkerInfo) -> list[float | None]:
    """Seconds of audio a second of each of the workers of a run to come."""
    return [known.spoken_s / known.busy_s if known.busy_s else None for known in at_known_speed(workers)[0]]


def files() -> list[Path]:
    return list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.json"))


def test_nothing_is_known_before_the_first_run_and_after_one_that_has_generated_nothing() -> None:
    keep_speed(CPU, 10.0)
    assert at_known_speed(CPU) == (CPU, 0.0)


def test_workers_that_share_a_device_share_its_speed() -> None:
    keep_speed([spoke(CPU[0], 100.0, 10.0), spoke(CPU[1], 50.0, 10.0)], 13.0)
    assert speeds(CPU[0]) == pytest.approx([15.0])
    assert speeds(*CPU) == pytest.approx([7.5, 7.5])
    assert at_known_speed(CPU)[1] == pytest.approx(3.0)


def test_each_of_several_gpus_has_the_mean_speed_of_its_kind() -> None:
    gpus = [on_gpu(0, 0), on_gpu(1, 1)]
    keep_speed([spoke(gpus[0], 300.0, 10.0), spoke(gpus[1], 100.0, 10.0)], 12.0)
    assert speeds(*gpus) == pytest.approx([20.0, 20.0])


def test_engines_checkpoints_and_kinds_of_devices_are_apart() -> None:
    gpu = on_gpu(0, 0)
    keep_speed([spoke(gpu, 100.0, 10.0)], 12.0)
    others = (CPU[0], replace(gpu, engine="upstream"), replace(gpu, fingerprint="other"), replace(gpu, gpu="L4"))
    assert [speeds(worker) for worker in (on_gpu(1, 1), *others)] == [[10.0], [None], [None], [None], [None]]


def test_a_short_run_changes_little_and_a_long_one_much() -> None:
    keep_speed([spoke(CPU[0], 1000.0, 100.0)], 110.0)
    keep_speed([spoke(CPU[0], 1.0, 1.0)], 3.0)
    assert speeds(CPU[0]) == pytest.approx([501 / 51])
    keep_speed([spoke(CPU[0], 4000.0, 100.0)], 110.0)
    assert speeds(CPU[0]) == pytest.approx([(4000 + 501 / 2) / (100 + 51 / 2)])


@pytest.mark.parametrize("content", ["", "[]", '{"audio_s": 1, "busy_s": 0, "start_s": 0}', '{"audio_s": "NaN"}'])
def test_a_damaged_measurement_is_passed_over_and_replaced(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    keep_speed([spoke(CPU[0], 100.0, 10.0)], 12.0)
    (file,) = files()
    file.write_text(content)
    assert speeds(CPU[0]) == [None]
    assert len(capsys.readouterr().err.splitlines()) == 1
    keep_speed([spoke(CPU[0], 60.0, 10.0)], 12.0)
    assert speeds(CPU[0]) == pytest.approx([6.0])
    assert files() == [file]
