from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cloner.audio import FRAME_SAMPLES
from cloner.engine import encode_recordings, make_engine
from cloner.engine.batched import BatchedEngine
from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.weights import check_device
from cloner.engine.codec.padded import CodecEncoder
from cloner.engine.fake import FakeEngine
from cloner.engine.kernel_trial.cache import KernelCache
from cloner.engine.upstream import UpstreamEngine
from cloner.errors import LoadFailed, MissingPackage
from cloner.events import Event
from cloner.settings import EngineName, Settings, load_settings


def settings(**values: object) -> Settings:
    return load_settings().model_copy(update=values)


def test_the_fake_engine_and_checking_a_checkpoint_import_no_torch() -> None:
    program = (
        "import sys; import cloner.engine.checkpoint.folder; from cloner.engine import make_engine;"
        " from cloner.settings import Settings; make_engine(Settings(engine='fake'), 'cpu');"
        " print(sorted({'torch', 'fish_speech', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_fake_engine_takes_its_settings() -> None:
    engine = make_engine(settings(engine=EngineName.FAKE, fake_slots=7), "cuda:3")
    assert isinstance(engine, FakeEngine)
    assert (engine.name, engine.slots) == ("fake", 7)


def test_the_upstream_engine_loads_the_checkpoint_of_the_settings(tiny: Path) -> None:
    engine = make_engine(settings(checkpoint_dir=tiny, engine=EngineName.UPSTREAM), "cpu")
    assert isinstance(engine, UpstreamEngine)
    lines: list[str] = []
    engine.load(lines.append)
    assert lines == ["Loading Text2Semantic model...", "Loading DAC model..."]
    engine.close()


def test_the_batched_engine_is_the_default_and_takes_its_settings(tiny: Path) -> None:
    engine = make_engine(settings(checkpoint_dir=tiny, slots=3), "cpu")
    assert isinstance(engine, BatchedEngine)
    lines: list[str] = []
    engine.load(lines.append)
    assert lines[:2] == ["Loading Text2Semantic model...", "Loading DAC model..."]
    assert lines[2].startswith("Cache: 3 slots of 2048 positions")
    assert engine.slots == 3
    engine.close()


def test_trying_kernels_leaves_most_of_the_time_that_a_load_may_take(tiny: Path) -> None:
    engine = make_engine(settings(checkpoint_dir=tiny, load_s=90.0, kernel_cache=Path("kernels")), "cuda:0")
    assert isinstance(engine, BatchedEngine)
    assert engine._options.kernel_cache == KernelCache(Path("kernels"), Path("out"), 30.0)


@pytest.mark.parametrize("name", [EngineName.BATCHED, EngineName.UPSTREAM])
def test_a_gpu_that_torch_does_not_find_is_reported(
    name: EngineName, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine = make_engine(settings(checkpoint_dir=tiny, engine=name), "cuda:1")
    with pytest.raises(LoadFailed, match="finds no GPU"):
        engine.load(lambda _line: None)


def scarce(monkeypatch: pytest.MonkeyPatch, *devices: str) -> None:
    """Let there be a GPU, and no memory to load a codec on these devices."""
    load = fish.load_codec

    def loaded(directory: Path, device: torch.device, part: fish.CodecPart) -> fish.Codec:
        if device.type in devices:
            raise torch.AcceleratorError("CUDA error: out of memory")
        return load(directory, device, part)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(fish, "load_codec", loaded)


def test_a_recording_is_encoded_on_the_cpu_where_a_gpu_has_no_memory(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scarce(monkeypatch, "cuda")
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * FRAME_SAMPLES).astype(np.float32)
    (codes,) = encode_recordings(settings(checkpoint_dir=tiny), [noise])
    assert np.array_equal(codes, CodecEncoder(tiny, torch.device("cpu"), 512).encode([noise])[0])
    assert Event.ENCODED_ON_CPU.line() in capsys.readouterr().err


def test_without_any_memory_for_a_recording_the_error_is_a_sentence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce(monkeypatch, "cuda", "cpu")
    with pytest.raises(LoadFailed, match="no memory for the codec and the recording: stop other programs"):
        encode_recordings(settings(checkpoint_dir=tiny), [np.zeros(100, dtype=np.float32)])


@pytest.mark.parametrize("name", [EngineName.BATCHED, EngineName.UPSTREAM])
def test_a_gpu_without_bfloat16_is_refused(name: EngineName, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")
    lines: list[str] = []
    with pytest.raises(
        LoadFailed, match=r"Tesla T4 has compute capability 7\.5 .* 8\.0 or newer is needed.*CLONER_GPUS"
    ):
        make_engine(settings(checkpoint_dir=tiny, engine=name), "cuda:0").load(lines.append)
    assert lines == []


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_gpus_with_bfloat16_are_taken(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    check_device(torch.device("cuda"))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        (EngineName.BATCHED, "torch"),
        (EngineName.BATCHED, "cloner.engine.batched"),
        (EngineName.UPSTREAM, "cloner.engine.upstream"),
    ],
)
def test_the_error_for_a_missing_package_says_how_to_install_it(
    name: EngineName, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if the module were not installed
    with pytest.raises(MissingPackage, match=rf"{package}.*make setup.*ops/fish-speech\.txt"):
        make_engine(settings(engine=name), "cpu")
