from __future__ import annotations

import pytest

from cloner.errors import BadSetting
from cloner.settings import load_worker_settings
from launcher.cpu import Cpu
from launcher.gpus import GB, Gpu, described_gpu
from launcher.layout import Layout, Rule, plan_layout

CPU = Cpu(cores=16, total_bytes=64 * GB)


def card(index: int, total_gb: float = 24, free_gb: float | None = None) -> Gpu:
    free = int((total_gb if free_gb is None else free_gb) * GB)
    return Gpu(index, "NVIDIA GeForce RTX 4090", f"GPU-{index:08d}-86f3-7a43", int(total_gb * GB), free)


def plan(
    *gpus: Gpu, memory_gb: float = 8.0, speakers: int | None = None, workers: int | None = None, cpu: Cpu = CPU
) -> Layout:
    return plan_layout(gpus, cpu, Rule(memory_gb), speakers=speakers, workers=workers)


def devices(layout: Layout) -> list[str]:
    return [spec.device for spec in layout.specs]


@pytest.mark.parametrize(
    ("total_gb", "memory_gb", "workers"),
    [
        (24, 5.3, 4),
        (24, 8.0, 2),
        (24, 5.4, 4),
        (24, 7.2, 3),
        (24, 2.4, 9),
        (24, 0.6, 36),
        (24, 5.41, 3),
        (80, 8.0, 9),
        (6, 8.0, 1),
        (1, 80.0, 1),
    ],
)
def test_a_card_runs_what_nine_tenths_of_its_memory_hold_and_at_least_one(
    total_gb: int, memory_gb: float, workers: int
) -> None:
    assert len(plan(card(0, total_gb), memory_gb=memory_gb).specs) == workers


@pytest.mark.parametrize(("total_gb", "memory_gb", "workers"), [("1.9", 0.171, 10), ("2.3", 0.23, 9), ("3.3", 0.33, 9)])
def test_exact_multiples_are_not_lost_to_floating_point(total_gb: str, memory_gb: float, workers: int) -> None:
    assert int(float(total_gb) * 0.9 / memory_gb) == workers - 1

    assert len(plan(described_gpu(f"A:{total_gb}", 0), memory_gb=memory_gb).specs) == workers


def test_one_card_at_5_3_gb_gives_the_fixed_log_lines() -> None:
    gpu = described_gpu("NVIDIA GeForce RTX 4090:24", 0)

    assert plan(gpu, memory_gb=5.3, speakers=6).lines() == [
        "[GPU 0] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB",
        "[GPU 0] Can run 4 workers (Available: 21.60 GB)",
        "[Main] Using 4 parallel workers across 1 GPU(s)",
        "[Main] GPU 0: 4 workers",
    ]


def test_two_cards_at_8_gb_get_workers_0_1_and_2_3() -> None:
    layout = plan(card(0), card(1), speakers=6)

    assert devices(layout) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert layout.lines()[1:] == [
        "[GPU 0] Can run 2 workers (Available: 21.60 GB)",
        "[GPU 1] NVIDIA GeForce RTX 4090, Total Memory: 24.00 GB",
        "[GPU 1] Can run 2 workers (Available: 21.60 GB)",
        "[Main] Using 4 parallel workers across 2 GPU(s)",
        "[Main] GPU 0: 2 workers",
        "[Main] GPU 1: 2 workers",
    ]


def test_without_gpus_workers_run_on_the_cpu() -> None:
    layout = plan(cpu=Cpu(cores=2, total_bytes=int(23.5 * GB)))

    assert devices(layout) == ["cpu", "cpu"]
    assert layout.lines() == [
        "[CPU] 2 cores, Total Memory: 23.50 GB",
        "[CPU] Can run 2 workers (Available: 21.15 GB)",
        "[Main] Using 2 parallel workers across 0 GPU(s)",
        "[Main] CPU: 2 workers",
    ]


@pytest.mark.parametrize(("cores", "total_gb", "workers"), [(2, 64, 2), (16, 24, 2), (1, 4, 1)])
def test_cpu_workers_are_limited_by_cores_and_by_memory(cores: int, total_gb: int, workers: int) -> None:
    layout = plan(cpu=Cpu(cores, total_gb * GB))

    assert len(layout.specs) == workers
    assert f"[CPU] Can run {workers} workers" in layout.lines()[1]


@pytest.mark.parametrize(
    ("speakers", "on_each"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1)), (4, (2, 2)), (6, (2, 2)), (99, (2, 2))]
)
def test_speakers_limit_the_workers_and_cards_are_filled_evenly(speakers: int, on_each: tuple[int, int]) -> None:
    layout = plan(card(0), card(1), speakers=speakers)

    assert tuple(devices(layout).count(device) for device in ("cuda:0", "cuda:1")) == on_each
    assert devices(layout) == sorted(devices(layout))


def test_a_small_card_gets_no_more_than_it_can_run() -> None:
    assert devices(plan(card(0, 80), card(1, 10), speakers=5)) == ["cuda:0"] * 4 + ["cuda:1"]


def test_a_card_without_a_worker_is_listed_and_not_counted() -> None:
    lines = plan(card(0), card(1), speakers=1).lines()

    assert lines[-2:] == ["[Main] Using 1 parallel workers across 1 GPU(s)", "[Main] GPU 0: 1 workers"]
    assert "[GPU 1] Can run 2 workers (Available: 21.60 GB)" in lines


def test_workers_override_the_formula_evenly_over_cards() -> None:
    layout = plan(card(0), card(1), workers=5)

    assert devices(layout) == ["cuda:0"] * 3 + ["cuda:1"] * 2
    assert "[GPU 0] Can run 2 workers (Available: 21.60 GB)" in layout.lines()
    assert "[Main] GPU 0: 3 workers" in layout.lines()


def test_workers_override_the_cpu_limit() -> None:
    assert len(plan(cpu=Cpu(cores=2, total_bytes=8 * GB), workers=4).specs) == 4


def test_workers_do_not_override_the_speaker_limit() -> None:
    assert devices(plan(card(0), card(1), workers=8, speakers=3)) == ["cuda:0", "cuda:0", "cuda:1"]


@pytest.mark.parametrize("number", [0, -1])
def test_fewer_than_one_is_an_error(number: int) -> None:
    with pytest.raises(BadSetting, match=f"--workers {number} makes no sense: give 1 or more"):
        plan(card(0), workers=number)
    with pytest.raises(BadSetting, match=f"--speakers {number} makes no sense: give 1 or more"):
        plan(card(0), speakers=number)


@pytest.mark.parametrize(
    ("gpus", "cpu", "most"),
    [
        (1, Cpu(2, 8 * GB), 64),
        (8, Cpu(128, 2048 * GB), 512),
        (0, Cpu(2, 8 * GB), 64),
        (0, Cpu(128, 2048 * GB), 128),  # what the rule alone gives
    ],
)
def test_more_workers_than_can_be_meant_are_an_error(gpus: int, cpu: Cpu, most: int) -> None:
    cards = [card(number) for number in range(gpus)]
    assert len(plan(*cards, cpu=cpu, workers=most).specs) == most
    for speakers in (None, most + 1):
        with pytest.raises(BadSetting) as caught:
            plan(*cards, cpu=cpu, workers=100_000, speakers=speakers)
        assert caught.value.message == f"--workers 100000 is more than this box can run: give {most} or fewer"
    assert len(plan(*cards, cpu=cpu, workers=100_000, speakers=3).specs) == 3, "no more are started"


def test_specs_name_card_number_pin_and_place() -> None:
    specs = plan(card(0), card(3)).specs

    assert [(spec.index, spec.card, spec.number, spec.pin, spec.gpu, spec.place) for spec in specs] == [
        (0, "GPU-00000000", 0, "GPU-00000000-86f3-7a43", "NVIDIA GeForce RTX 4090", "GPU 0"),
        (1, "GPU-00000000", 1, "GPU-00000000-86f3-7a43", "NVIDIA GeForce RTX 4090", "GPU 0"),
        (2, "GPU-00000003", 0, "GPU-00000003-86f3-7a43", "NVIDIA GeForce RTX 4090", "GPU 3"),
        (3, "GPU-00000003", 1, "GPU-00000003-86f3-7a43", "NVIDIA GeForce RTX 4090", "GPU 3"),
    ]


def test_a_described_card_is_pinned_by_number() -> None:
    specs = plan(described_gpu("A:24", 0), described_gpu("B:24", 1), speakers=2).specs

    assert [(spec.card, spec.number, spec.pin, spec.gpu) for spec in specs] == [
        ("gpu0", 0, "0", "A"),
        ("gpu1", 0, "1", "B"),
    ]


def test_cpu_workers_see_no_gpu() -> None:
    [spec] = plan(workers=1).specs

    assert (spec.card, spec.place, spec.gpu) == ("cpu", "CPU", "")
    assert spec.environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_workers_keep_the_memory_they_have_freed() -> None:
    environment = plan(workers=1).specs[0].environment()

    assert environment["MALLOC_MMAP_THRESHOLD_"] == environment["MALLOC_TRIM_THRESHOLD_"] == str(4 * GB)


@pytest.mark.parametrize(("cores", "workers", "threads"), [(16, 4, 4), (16, 5, 3), (2, 4, 1), (2, 1, 2)])
def test_cores_are_divided_into_threads(cores: int, workers: int, threads: int) -> None:
    cpu = Cpu(cores, 64 * GB)

    for layout in (plan(cpu=cpu, workers=workers), plan(card(0), cpu=cpu, workers=workers)):
        assert {spec.threads for spec in layout.specs} == {threads}
        assert layout.specs[0].environment()["OMP_NUM_THREADS"] == str(threads)


def test_a_workers_environment_is_what_its_settings_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in plan(card(0), card(1)).specs[3].environment().items():
        monkeypatch.setenv(name, value)

    assert load_worker_settings().model_dump() == {
        "index": 3,
        "card": "GPU-00000001",
        "number": 1,
        "device": "cuda:1",
        "gpu": "NVIDIA GeForce RTX 4090",
        "memory_gb": 8.0,
    }


def test_a_fixed_number_of_workers_shares_the_memory_of_its_card() -> None:
    layout = plan_layout([card(0), card(1, 80)], CPU, Rule(8.0, per_gpu=2), speakers=None, workers=None)

    assert [(spec.device, spec.memory_gb) for spec in layout.specs] == [
        ("cuda:0", 10.8),
        ("cuda:0", 10.8),
        ("cuda:1", 36.0),
        ("cuda:1", 36.0),
    ]


def test_without_a_gpu_a_fixed_number_for_gpus_has_no_effect() -> None:
    layout = plan_layout([], Cpu(2, 24 * GB), Rule(8.0, per_gpu=1), speakers=None, workers=None)

    assert [spec.memory_gb for spec in layout.specs] == [8.0, 8.0]


def test_a_card_that_other_processes_use_gets_a_warning() -> None:
    layout = plan(card(0, free_gb=15.5), card(1, free_gb=23.5))

    assert layout.warnings() == [
        "[GPU 0] 2 workers take about 16.00 GB, and only 15.50 of 24.00 GB are free: they may not fit"
    ]
