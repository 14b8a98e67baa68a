"""The box's GPUs, read through NVML."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloner.errors import BadSetting, NoUsableGpu
from cloner.events import Event
from cloner.logs import log_event

try:
    import pynvml
except ImportError:  # need not be installed on a box without a GPU
    pynvml = None

GB = 1024**3

LARGEST_GB = 2048
"""Largest memory of a GPU that is accepted in a description; more is a size in MB by mistake."""

ADVICE = "see what `nvidia-smi` says, and restart the box if it fails, or set CUDA_VISIBLE_DEVICES=-1 to use the CPU"


NONE = frozenset({"", "-1"})
"""Names in CUDA_VISIBLE_DEVICES that hide all that follows."""


@dataclass(frozen=True)
class Gpu:
    """A device that workers can be pinned to: a card, or one MIG instance of a card."""

    index: int
    """Its number on the box, as in ``nvidia-smi``; each MIG instance takes one, so later cards get higher ones."""
    name: str
    uuid: str
    """Empty for a GPU that was described on the command line."""
    total_bytes: int
    free_bytes: int

    @property
    def card(self) -> str:
        """Its part of queue and worker names: the start of the UUID, since indices may change at a restart."""
        return self.uuid[:12] or f"gpu{self.index}"

    @property
    def pin(self) -> str:
        """The value of CUDA_VISIBLE_DEVICES that shows a process this GPU alone."""
        return self.uuid or str(self.index)


@dataclass(frozen=True)
class _Card:
    """A physical card: `number` and `uuid` as in ``nvidia-smi``; `gpus` is the card, its MIG instances, or empty if it
    cannot be used."""

    number: int
    uuid: str
    gpus: tuple[Gpu, ...]


def find_gpus(environ: Mapping[str, str] = os.environ, only: str | None = None) -> list[Gpu]:
    """The GPUs that NVML lists and CUDA_VISIBLE_DEVICES allows, in that variable's order; or those of them that `only`
    names (`Settings.gpus`, in the form of that variable), in its order.

    Without NVML's Python package or the driver there are none, nor where CUDA_VISIBLE_DEVICES is empty or -1. A card
    that NVML cannot read is left out, with a warning. Indices count as in ``nvidia-smi``; the number or UUID of a card
    with MIG means all of its instances. Raises `BadSetting` if a name is of no GPU of the box, or if `only` names one
    that CUDA_VISIBLE_DEVICES hides; `NoUsableGpu` if the driver fails, or none of the cards can be used: a box that has
    lost its GPU must not go on, far slower, on its CPU.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if only is None and visible is not None and _names_none(visible):
        return []
    cards = _list_cards()
    gpus = [gpu for card in cards or () for gpu in card.gpus]
    if cards is not None and visible is not None:
        gpus = _named(cards, "CUDA_VISIBLE_DEVICES", visible)
    chosen = gpus if only is None else _chosen(cards or [], only, gpus, visible)
    if cards and not chosen:
        raise NoUsableGpu(f"none of this box's GPUs can be used, as the warnings say: {ADVICE}")
    return chosen


def _chosen(cards: Sequence[_Card], only: str, gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    chosen = _named(cards, "CLONER_GPUS", only)
    for gpu in chosen:
        if gpu not in gpus:
            raise BadSetting(
                f"CLONER_GPUS={only} names GPU {gpu.index}, which CUDA_VISIBLE_DEVICES={visible} hides: "
                "change one of the two"
            )
    return chosen


def _list_cards() -> list[_Card] | None:
    """The box's cards; None where there is no NVML, or no driver. Raises `NoUsableGpu` where NVML fails."""
    if pynvml is None:
        log_event(Event.NVML_MISSING)
        return None
    try:
        pynvml.nvmlInit()
        try:
            return _read_cards()
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return None
    except pynvml.NVMLError as error:
        raise NoUsableGpu(f"no GPU of this box can be used, NVML says: {error}: {ADVICE}") from error


def described_gpu(text: str, index: int) -> Gpu:
    """The GPU described as ``NAME:GB`` (GB of 1024**3 bytes), for where NVML cannot be asked. Raises `BadSetting`."""
    name, _, size = text.rpartition(":")
    try:
        total_gb = float(size)
    except ValueError:
        total_gb = math.nan
    if not name.strip() or not (0 < total_gb <= LARGEST_GB):
        raise BadSetting(
            f'--gpu "{text}" is not a name and a size in GB: write NAME:GB, as in "NVIDIA GeForce RTX 4090:24"'
        )
    total_bytes = math.ceil(total_gb * GB)
    return Gpu(index, name.strip(), "", total_bytes, total_bytes)


def _read_cards() -> list[_Card]:
    cards: list[_Card] = []
    index = 0
    for number in range(pynvml.nvmlDeviceGetCount()):
        uuid = ""
        gpus: tuple[Gpu, ...] = ()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            parts = list(_mig_instances(handle)) if _has_mig(handle) else [handle]
            gpus = tuple(_read_gpu(part, index + offset) for offset, part in enumerate(parts))
            if not gpus:
                log_event(Event.GPU_WITHOUT_MIG_INSTANCE, index=index)
        except pynvml.NVMLError as error:
            log_event(Event.GPU_UNREADABLE, index=index, error=error)
        cards.append(_Card(number, uuid, gpus))
        index += max(1, len(gpus))
    return cards


def _has_mig(handle: Any) -> bool:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _mig_instances(handle: Any) -> Iterator[Any]:
    for slot in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            continue  # a slot without an instance


def _read_gpu(handle: Any, index: int) -> Gpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def _named(cards: Sequence[_Card], variable: str, names: str) -> list[Gpu]:
    """The GPUs that a variable's comma-separated numbers and UUIDs name, in their order. Raises `BadSetting`."""
    chosen: dict[int, Gpu] = {}
    for name in (part.strip() for part in names.split(",")):
        if name in NONE:
            break  # as CUDA does: nothing after it is visible
        known = False
        for card in cards:
            is_card = str(card.number) == name or _abbreviates(name, card.uuid)
            gpus = [gpu for gpu in card.gpus if is_card or _abbreviates(name, gpu.uuid)]
            chosen |= {gpu.index: gpu for gpu in gpus}
            known = known or is_card or bool(gpus)
        if not known:
            raise BadSetting(
                f"{variable}={names} names {name}, which this box does not have: "
                "give numbers or UUIDs that `nvidia-smi -L` lists, or unset it"
            )
    return list(chosen.values())


def _names_none(names: str) -> bool:
    return names.split(",", maxsplit=1)[0].strip() in NONE


def _abbreviates(name: str, uuid: str) -> bool:
    return name.startswith(("GPU-", "MIG-")) and uuid.startswith(name)
