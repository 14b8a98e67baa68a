from __future__ import annotations

import pytest
import torch

from cloner.engine.checkpoint.folder import init_checkpoint
from cloner.engine.checkpoint.presets import Preset
from cloner.engine.slots.cache import position_bytes
from ops.engine_bench import ours, roofline


def test_a_step_of_the_published_size_reads_what_its_configuration_says() -> None:
    step = roofline.step_cost("s1-mini", slots=1, positions=1, precision=torch.bfloat16)
    assert step.cache_bytes == 112 * 1024
    slow = 28 * (1024 * (16 + 8 + 8 + 16) * 128 + 3 * 1024 * 3072)
    fast = 4 * (1024 * (16 + 8 + 8 + 16) * 64 + 3 * 1024 * 3072)
    assert step.weight_bytes == 2 * (slow + 9 * fast + 4097 * 1024 + 9 * 1024 * 1024)
    assert step.weight_bytes == pytest.approx(1.9e9, rel=0.05)


def test_more_slots_read_the_weights_once_and_each_its_cache() -> None:
    one, eight = (roofline.step_cost("small", slots, 300, torch.float32) for slots in (1, 8))
    assert eight.weight_bytes == one.weight_bytes
    assert eight.cache_bytes == 8 * one.cache_bytes
    assert eight.flops == 8 * one.flops


def test_a_positions_bytes_are_those_of_the_engines_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    init_checkpoint(directory, Preset.TINY)
    model, _prompts = ours.load_model(directory, torch.device("cpu"), torch.float32)
    step = roofline.step_cost("tiny", slots=1, positions=1, precision=torch.float32)
    assert step.cache_bytes == position_bytes(model.slow, torch.float32)
