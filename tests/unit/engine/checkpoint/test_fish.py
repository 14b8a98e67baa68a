from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fish_speech.models.dac import modded_dac
from fish_speech.models.text2semantic import llama

from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.files import FILES
from cloner.errors import LoadFailed
from tests.support.engine_requests import CPU

WEIGHTS = ("model.pth", "codec.pth")


def load(directory: Path) -> tuple[fish.Text2Semantic, fish.Codec]:
    return fish.load_text2semantic(directory, CPU, torch.float32), fish.load_codec(directory, CPU)


def load_failure(directory: Path) -> str:
    with pytest.raises(LoadFailed) as caught:
        load(directory)
    assert "\n" not in caught.value.message
    return caught.value.message


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_text2semantic_equals_what_upstream_loads(tiny: Path) -> None:
    ours = fish.load_text2semantic(tiny, CPU, torch.float32)
    theirs = llama.DualARTransformer.from_pretrained(str(tiny), load_weights=True).to(CPU, torch.float32)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    for name in ("freqs_cis", "fast_freqs_cis"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    positions = torch.tensor([0, 7, 4095])
    for queries, keys in ((positions, slice(5)), (positions, slice(4096)), (slice(9), slice(9))):
        index = (None, None, queries, keys)
        assert torch.equal(ours.causal_mask[index], theirs.causal_mask[index])
    assert not ours.training


def test_the_codec_rebuilds_the_buffers_that_upstream_builds(tiny: Path) -> None:
    codec = fish.load_codec(tiny, CPU)
    transformers = [part for part in codec.modules() if isinstance(part, modded_dac.Transformer)]
    assert len(transformers) == 3
    for ours in transformers:
        theirs = modded_dac.Transformer(dataclasses.replace(ours.config, block_size=64))
        assert len(ours.freqs_cis) == ours.config.block_size
        assert torch.equal(ours.freqs_cis[:64], theirs.freqs_cis.float())


def test_no_tensor_is_left_without_values(tiny: Path) -> None:
    for model in load(tiny):
        tensors = [*model.parameters(), *model.buffers()]
        assert tensors
        assert {tensor.device.type for tensor in tensors} == {"cpu"}


def test_a_checkpoint_that_is_overwritten_does_not_change_loaded_models(copy_of_tiny: Path) -> None:
    models = load(copy_of_tiny)
    before = [weight.clone() for model in models for weight in model.parameters()]
    for name in WEIGHTS:
        path = copy_of_tiny / name
        path.write_bytes(bytes(path.stat().st_size))
    after = [weight for model in models for weight in model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_weights_that_training_wrapped_are_unwrapped(copy_of_tiny: Path) -> None:
    plain = load(copy_of_tiny)
    for name, prefix in zip(WEIGHTS, ("model.", "generator."), strict=True):
        weights = torch.load(copy_of_tiny / name, weights_only=True)
        wrapped = {prefix + key: value for key, value in weights.items()} | {"discriminator.weight": torch.ones(3)}
        torch.save({"state_dict": wrapped}, copy_of_tiny / name)
    for one, other in zip(plain, load(copy_of_tiny), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [lambda _data: b"", lambda data: data[: len(data) // 2], lambda _data: b"\x80garbage\xff\n" * 200],
    ids=["empty", "cut short", "garbage"],
)
def test_a_damaged_file_is_named_in_the_error(name: str, damage: Callable[[bytes], bytes], copy_of_tiny: Path) -> None:
    path = copy_of_tiny / name
    path.write_bytes(damage(path.read_bytes()))
    assert name in load_failure(copy_of_tiny)


class Program:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("saved_by", ["torch", "pickle"])
def test_a_program_among_the_weights_is_not_run(name: str, saved_by: str, copy_of_tiny: Path, tmp_path: Path) -> None:
    program = {"a": Program(tmp_path / "ran")}
    if saved_by == "torch":
        torch.save(program, copy_of_tiny / name)
    else:
        (copy_of_tiny / name).write_bytes(pickle.dumps(program))
    assert name in load_failure(copy_of_tiny)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", WEIGHTS)
def test_missing_weights_are_counted(name: str, copy_of_tiny: Path) -> None:
    weights = torch.load(copy_of_tiny / name, weights_only=True)
    torch.save(dict(list(weights.items())[2:]), copy_of_tiny / name)
    message = load_failure(copy_of_tiny)
    assert f"{name} lacks weights" in message
    assert "2 in all" in message


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_file_with_something_else_than_named_weights_is_refused(name: str, copy_of_tiny: Path) -> None:
    torch.save([torch.ones(3)], copy_of_tiny / name)
    assert f"{name} holds a list" in load_failure(copy_of_tiny)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dim": 128}, "size mismatch"),
        ({"n_head": 3}, "configuration of a fish-speech 0.1.0 model"),
        ({"n_layer": "two"}, "configuration of a fish-speech 0.1.0 model"),
        ({"flavour": 1}, "flavour"),
        ({"model_type": "naive"}, "config.json"),
        ({"num_codebooks": 8}, "8 codebooks"),
        ({"vocab_size": 300}, "vocab_size of 300"),
        ({"tie_word_embeddings": False}, "output.weight"),
    ],
    ids=str,
)
def test_the_error_for_a_wrong_configuration_says_where(change: dict[str, Any], word: str, copy_of_tiny: Path) -> None:
    change_json(copy_of_tiny / "config.json", lambda config: config.update(change))
    assert word in load_failure(copy_of_tiny)


def test_the_list_of_special_tokens_must_reach_as_far_as_the_codec(copy_of_tiny: Path) -> None:
    path = copy_of_tiny / "special_tokens.json"
    tokens = json.loads(path.read_text())
    path.write_text(json.dumps(dict(list(tokens.items())[: 15 + 1024])))  # fish-speech 0.1.0's default
    assert "has 1024 semantic tokens; the codec needs 4096" in load_failure(copy_of_tiny)


def test_special_tokens_without_an_end_are_refused(copy_of_tiny: Path) -> None:
    change_json(copy_of_tiny / "special_tokens.json", lambda tokens: tokens.pop("<|im_end|>"))
    assert "im_end" in load_failure(copy_of_tiny)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ({"_target_": "os.getcwd"}, "'os.getcwd' is not a whole number"),
        ({"quantizer": {"pre_module": {"_target_": "os.getcwd"}}}, "not a whole number"),
        ({"colour": 3}, "colour"),
        ({"encoder_rates": [2, 2, 2, 2]}, "codec of another kind"),
        ({"quantizer": {"n_codebooks": 4}}, "codec of another kind"),
        ({"encoder_dim": 8}, "size mismatch"),
        ([64], "codec.json"),
    ],
    ids=str,
)
def test_sizes_of_a_codec_that_do_not_fit_are_refused(sizes: Any, word: str, copy_of_tiny: Path) -> None:
    (copy_of_tiny / "codec.json").write_text(json.dumps(sizes))
    assert word in load_failure(copy_of_tiny)


def test_without_sizes_the_codec_is_upstreams(copy_of_tiny: Path) -> None:
    (copy_of_tiny / "codec.json").unlink()
    assert "the shape in current model is torch.Size([64])" in load_failure(copy_of_tiny)
