"""Engines behind one protocol. Only this package imports torch, and only when a real engine is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloner.engine.packages import worker_packages
from cloner.errors import LoadFailed
from cloner.events import Event
from cloner.logs import log_event
from cloner.settings import EngineName, Settings

if TYPE_CHECKING:
    from cloner.audio import Audio, Codes  # these modules import numpy
    from cloner.engine.base import Engine


def check_engine(settings: Settings) -> None:
    """Check that the files that the engine will load exist, before the long imports. Raises `LoadFailed`."""
    if settings.engine is not EngineName.FAKE:
        from cloner.engine.checkpoint.folder import check_checkpoint

        check_checkpoint(settings.checkpoint_dir)


def make_engine(settings: Settings, device: str, memory_gb: float | None = None) -> Engine:
    """The engine that the settings name, not loaded yet.

    `device` is the worker's label, "cpu" or "cuda:N" with the box's own number of the GPU; a worker is pinned to
    its GPU and sees no other, so the number is ignored. `memory_gb` limits the memory that the engine may use, by
    default to the setting. Raises `MissingPackage`.
    """
    if settings.engine is EngineName.FAKE:
        from cloner.engine.fake import FakeEngine

        return FakeEngine(settings.fake_slots, settings.fake_load_s, settings.fake_segment_s)
    with worker_packages():
        import torch

        if settings.engine is EngineName.UPSTREAM:
            from cloner.engine.upstream import UpstreamEngine
        else:
            from cloner.engine.batched import BatchedEngine
            from cloner.engine.kernel_trial.cache import KernelCache
            from cloner.engine.pipeline import Options
    torch_device, precision = torch.device("cpu"), torch.float32
    if device.startswith("cuda"):
        torch_device, precision = torch.device("cuda"), torch.bfloat16
    if settings.engine is EngineName.UPSTREAM:
        return UpstreamEngine(settings.checkpoint_dir, torch_device, precision)
    options = Options(
        memory_gb or settings.model_memory_gb,
        settings.batched_slots(device),
        settings.deterministic,
        kernel_cache=KernelCache(settings.kernel_cache, settings.out_dir, settings.load_s / 3),
    )
    return BatchedEngine(settings.checkpoint_dir, torch_device, precision, options)


def encode_recordings(settings: Settings, recordings: Sequence[Audio]) -> list[Codes]:
    """Codes of recordings by the checkpoint's codec alone, on a GPU if there is one that has the memory.

    Raises `MissingPackage`, `LoadFailed` or `BadReference`.
    """
    from cloner.engine.checkpoint.folder import check_checkpoint

    check_checkpoint(settings.checkpoint_dir)
    with worker_packages():
        import torch

        from cloner.engine.codec.padded import CODEC_FRAMES, CodecEncoder
        from cloner.engine.memory import is_out_of_memory
    for device in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        try:
            return CodecEncoder(settings.checkpoint_dir, torch.device(device), CODEC_FRAMES).encode(recordings)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if device == "cuda":  # a worker leaves little of its GPU
            log_event(Event.ENCODED_ON_CPU)
    raise LoadFailed("there is no memory for the codec and the recording: stop other programs, or use a shorter one")


def codec_identity(settings: Settings) -> str:
    """Identifies the codec that encodes recordings: the fake engine, or the checkpoint's codec by size and time."""
    if settings.engine is EngineName.FAKE:
        return str(EngineName.FAKE)
    from cloner.engine.checkpoint.files import CODEC_WEIGHTS

    weights = (settings.checkpoint_dir / CODEC_WEIGHTS).stat()
    return f"{settings.checkpoint_dir.resolve().name}-{weights.st_size:x}-{weights.st_mtime_ns:x}"
