"""Files that are neither references nor checkpoints: each `Make` damages or replaces the file at a path."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.lib import format as npy

from cloner.batch import CODEBOOK_SIZES

Make = Callable[[Path], object]


class OpensDoor:
    """An object that creates a file when it is unpickled."""

    def __init__(self, door: Path) -> None:
        self.door = door

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.door,)


def good_codes(frames: int = 20) -> np.ndarray[Any, Any]:
    return np.stack([np.arange(frames) % size for size in CODEBOOK_SIZES]).astype(np.int32)


def content(data: bytes) -> Make:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def codes(values: object, **options: Any) -> Make:
    """A ``.npy`` of these values."""

    def make(path: Path) -> None:
        with path.open("wb") as file:  # given a path, numpy would append ".npy"
            np.save(file, np.asarray(values), **options)

    return make


def pickled_array(path: Path) -> None:
    """An object array: loading it with pickles allowed runs code."""
    codes(np.array([OpensDoor(path.parent / "door")], dtype=object), allow_pickle=True)(path)


def several_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=good_codes())


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(OpensDoor(path.parent / "door")))


def program_for_weights(path: Path) -> None:
    """A file of torch's format: loading it with anything but ``weights_only`` runs code."""
    import torch

    torch.save({"a": OpensDoor(path.parent / "door")}, path)


def weights(values: object) -> Make:
    """A file of torch's format that holds these values."""

    def make(path: Path) -> None:
        import torch

        torch.save(values, path)

    return make


def npy_header(shape: tuple[int, ...], descr: str = "<i8") -> Make:
    """The header of a ``.npy`` without data."""
    file = io.BytesIO()
    npy.write_array_header_2_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return content(file.getvalue())


def long_npy_header(size: int, there: bool) -> Make:
    """A ``.npy`` whose header claims a length of `size`; with `there`, the file has it, as a hole."""

    def make(path: Path) -> None:
        path.write_bytes(b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little"))
        if there:
            os.truncate(path, 12 + size)

    return make


def cut(size: int) -> Make:
    """The file truncated to `size` bytes, or by as many bytes if `size` is negative."""
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def both(*makers: Make) -> Make:
    """One maker after another."""
    return lambda path: [make(path) for make in makers]


def tone(seconds: float, rate: int = 16_000) -> np.ndarray[Any, Any]:
    return 0.3 * np.sin(np.arange(round(seconds * rate)) / 10)


def recording(samples: object, rate: int = 16_000, **options: Any) -> Make:
    """A recording as 32-bit numbers."""
    return lambda path: soundfile.write(
        path, np.asarray(samples), rate, **{"format": "WAV", "subtype": "FLOAT", **options}
    )


def three_hours(path: Path) -> None:
    """Three hours at 44,100 Hz: 30 s of tone, and a hole."""
    soundfile.write(path, tone(30, 44_100), 44_100, format="WAV", subtype="PCM_16")
    size = 44 + 3 * 3600 * 44_100 * 2
    with path.open("r+b") as file:
        for place, value in ((4, size - 8), (40, size - 44)):
            file.seek(place)
            file.write(value.to_bytes(4, "little"))
        file.truncate(size)


def hole(size: int) -> Make:
    """A sparse file of zeros."""

    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def link(target: str) -> Make:
    """A symbolic link in the file's place."""

    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


def fifo(path: Path) -> None:
    """A named pipe without a writer."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def changed(**values: Any) -> Make:
    """A JSON file with some values replaced."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_bytes()) | values))
