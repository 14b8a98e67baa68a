"""Checkpoints that cannot be loaded: what becomes of a file, and the error message."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from cloner.commandline import report_errors
from cloner.engine import make_engine
from cloner.engine.checkpoint.fish import MAX_POSITIONS, load_text2semantic
from cloner.settings import EngineName, Settings
from tests.support import bad_files as bad
from tests.support.bad_inputs import CommandLine
from tests.support.memory import memory_limit
from tests.support.processes import run_cloner

CHECKPOINTS: dict[str, tuple[str, bad.Make, str]] = {
    # the file, what becomes of it, the message
    "no model": ("model.pth", Path.unlink, "has no readable model.pth: fetch a checkpoint"),
    "no codec": ("codec.pth", Path.unlink, "has no readable codec.pth"),
    "no configuration": ("config.json", Path.unlink, "has no readable config.json"),
    "no tokenizer": ("tokenizer.tiktoken", Path.unlink, "has no readable tokenizer.tiktoken"),
    "no special tokens": ("special_tokens.json", Path.unlink, "has no readable special_tokens.json"),
    "a model that is a pipe": ("model.pth", bad.fifo, "has no readable model.pth"),
    "a model that is a device": ("model.pth", bad.link("/dev/zero"), "has no readable model.pth"),
    "a codec that is a folder": ("codec.pth", bad.both(Path.unlink, Path.mkdir), "has no readable codec.pth"),
    "half a model": ("model.pth", bad.cut(1_000_000), "model.pth is no whole file"),
    "half a codec": ("codec.pth", bad.cut(100_000), "codec.pth is no whole file"),
    "an empty model": ("model.pth", bad.content(b""), "model.pth"),
    "a model that is a program": ("model.pth", bad.program_for_weights, "loading it could run a program: refused"),
    "a codec that is a program": ("codec.pth", bad.program_for_weights, "loading it could run a program: refused"),
    "a model of another size": ("config.json", bad.changed(dim=128), "size mismatch"),
    "a configuration that is no JSON": ("config.json", bad.content(b"{"), "config.json cannot be read as the config"),
    "a configuration in UTF-16": ("config.json", bad.content("{}".encode("utf-16")), "config.json cannot be read as"),
    "a configuration that is a list": ("config.json", bad.content(b"[]"), "config.json cannot be read as the config"),
    "a million layers": ("config.json", bad.changed(n_layer=10**6), "n_layer is 1000000 here, and 2 layers there"),
    "a million fast layers": ("config.json", bad.changed(n_fast_layer=10**6), "n_fast_layer is 1000000 here"),
    "a huge head": ("config.json", bad.changed(head_dim=10**9), "size mismatch"),
    "a codec of a million layers": (
        "codec.json",
        bad.changed(encoder_transformer_layers=[10**6, 0, 0, 1]),
        "encoder_transformer_layers is 1000000, and the file of weights has",
    ),
    "weights without names": ("model.pth", bad.weights({1: [2]}), "holds under 1 a list, and tensors under names"),
    "layers in words": ("config.json", bad.changed(n_layer="two"), "config.json cannot be read as the configuration"),
    "no heads": ("config.json", bad.changed(n_head=0), "config.json cannot be read as the configuration"),
    "too many positions": ("config.json", bad.changed(max_seq_len=10**9), "max_seq_len of 1000000000; 1 to 65536"),
    "another kind of model": ("config.json", bad.changed(model_type="naive"), "config.json cannot be read as"),
    "too few codebooks": ("config.json", bad.changed(num_codebooks=8), "8 codebooks of 4096; the codec has 10"),
    "too few words": ("config.json", bad.changed(vocab_size=300), "vocab_size of 300: take all files from one"),
    "a tokenizer of nothing": ("tokenizer.tiktoken", bad.content(b"\xff\xfe"), "cannot be read as a tokenizer"),
    "special tokens of nothing": ("special_tokens.json", bad.content(b"{}"), "special_tokens.json"),
    "a model that is a pickle": ("model.pth", bad.pickled, "model.pth is no whole file of PyTorch weights"),
    "a codec that calls": ("codec.json", bad.changed(_target_="os.getcwd"), "'os.getcwd' is not a whole number"),
    "a codec of another kind": ("codec.json", bad.changed(encoder_rates=[2, 2]), "codec"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make", "message"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_loaded(
    tiny_checkpoint: Path, tmp_path: Path, command_line: CommandLine, name: str, make: bad.Make, message: str
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint", copy_function=os.link))
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(whole)
    make(folder / name)

    def load() -> None:
        with report_errors():
            make_engine(Settings(checkpoint_dir=folder, engine=EngineName.BATCHED), "cpu").load(lambda _line: None)

    status, stderr = command_line(entry=load)
    assert (status, len(stderr.splitlines())) == (78, 1)
    assert message in stderr
    assert not (folder / "door").exists()


@pytest.mark.slow
def test_many_positions_take_little_memory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    bad.changed(max_seq_len=MAX_POSITIONS)(folder / "config.json")
    with memory_limit():
        load_text2semantic(folder, torch.device("cpu"), torch.float32)


@pytest.mark.slow
def test_a_run_with_a_checkpoint_that_is_a_program_does_not_run_it(
    batch_folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    bad.program_for_weights(folder / "model.pth")
    ran = run_cloner(
        "run", "b.json", "--out", "out", "--workers", "1", cwd=batch_folder, env={"CLONER_CHECKPOINT_DIR": str(folder)}
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "model.pth holds more than weights, and loading it could run a program: refused" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (folder / "door").exists()
    assert not list((batch_folder / "out").rglob("*.wav"))
