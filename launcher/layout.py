"""Which workers a box runs, and on which devices: pure arithmetic over the results of `gpus` and `cpu`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from cloner.errors import BadSetting
from cloner.events import Event
from cloner.settings import Settings
from launcher.cpu import Cpu
from launcher.gpus import GB, Gpu

USABLE = Fraction(9, 10)
"""Part of a card's memory that workers may take."""

KEPT_BYTES = 4 * 1024**3
"""Bytes of freed memory that a worker keeps for its next allocation."""

MOST_WORKERS = 64
"""Most workers a GPU, or on a box without one, that `--workers` may ask for where the memory holds fewer: as many as
`CLONER_WORKERS_PER_GPU`."""


@dataclass(frozen=True)
class WorkerSpec:
    """One worker of a box, with the names of `WorkerSettings`."""

    index: int
    card: str
    number: int
    device: str
    gpu: str
    pin: str
    """CUDA_VISIBLE_DEVICES for it; empty on CPU, so that it sees no GPU."""
    threads: int
    memory_gb: float
    """GB that the worker may use of its card's memory, or of the machine's."""

    @property
    def place(self) -> str:
        """As in "Launching Worker 0 on GPU 0"."""
        return "GPU " + self.device.removeprefix("cuda:") if self.pin else "CPU"

    def environment(self) -> dict[str, str]:
        """Environment variables of the worker's process."""
        return {
            "CUDA_VISIBLE_DEVICES": self.pin,
            # A pin that is a number counts as nvidia-smi counts, not fastest card first.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            # The codec on a CPU allocates and frees large blocks all the time; returned to the kernel each time, they
            # cost more than the arithmetic on them.
            "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
            "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "CLONER_WORKER_INDEX": str(self.index),
            "CLONER_WORKER_CARD": self.card,
            "CLONER_WORKER_NUMBER": str(self.number),
            "CLONER_WORKER_DEVICE": self.device,
            "CLONER_WORKER_GPU": self.gpu,
            "CLONER_WORKER_MEMORY_GB": f"{self.memory_gb:.3f}",
        }


@dataclass(frozen=True)
class Place:
    """A GPU (or the CPU, where `gpu` is None), how many workers fit on it and how many it gets."""

    gpu: Gpu | None
    room: int
    workers: int

    @property
    def title(self) -> str:
        """As in log lines."""
        return "CPU" if self.gpu is None else f"GPU {self.gpu.index}"


@dataclass(frozen=True)
class Layout:
    """The workers of a box. `places` holds every card, those without a worker included."""

    cpu: Cpu
    places: tuple[Place, ...]
    specs: tuple[WorkerSpec, ...]

    def lines(self) -> list[str]:
        """Log lines: what was found and what it is used for. Users grep for them, so their wording is fixed."""
        lines: list[str] = []
        for place in self.places:
            if place.gpu is None:
                what, total = f"{self.cpu.cores} cores", self.cpu.total_bytes
            else:
                what, total = place.gpu.name, place.gpu.total_bytes
            lines.append(Event.GPU_FOUND.line(place=place.title, name=what, total_gb=total / GB))
            available_gb = float(total * USABLE) / GB
            lines.append(Event.GPU_ROOM.line(place=place.title, room=place.room, available_gb=available_gb))
        used = [place for place in self.places if place.workers]
        gpus = sum(place.gpu is not None for place in used)
        lines.append(Event.WORKERS_PLANNED.line(workers=len(self.specs), gpus=gpus))
        lines += [Event.WORKERS_ON_PLACE.line(place=place.title, workers=place.workers) for place in used]
        return lines

    def warnings(self) -> list[str]:
        """Log lines about cards on which the workers may not fit: too small, or used by other processes."""
        lines: list[str] = []
        for place in self.places:
            needed = sum(spec.memory_gb for spec in self.specs if place.gpu and spec.card == place.gpu.card)
            if place.gpu is not None and place.gpu.free_bytes / GB < needed:
                lines.append(
                    Event.GPU_MAY_NOT_FIT.line(
                        place=place.title,
                        workers=place.workers,
                        needed_gb=needed,
                        free_gb=place.gpu.free_bytes / GB,
                        total_gb=place.gpu.total_bytes / GB,
                    )
                )
        return lines


@dataclass(frozen=True)
class Rule:
    """How many workers a card runs: what its memory holds at `memory_gb` each, or `per_gpu` on every GPU, which then
    share its memory, each at most `most_gb` of it. Without a GPU, always by memory."""

    memory_gb: float
    per_gpu: int | None = None
    most_gb: float = math.inf

    @classmethod
    def of(cls, settings: Settings) -> Rule:
        is_set = "model_memory_gb" in settings.model_fields_set
        most_gb = settings.model_memory_gb if is_set else math.inf
        return cls(settings.model_memory_gb, settings.fixed_workers_per_gpu, most_gb)

    def room(self, card: Gpu | None, cpu: Cpu) -> int:
        """Workers that fit on a card, or on the machine."""
        if card is None:
            return min(_room(cpu.total_bytes, self.memory_gb), cpu.cores)
        return self.per_gpu or _room(card.total_bytes, self.memory_gb)

    def share(self, card: Gpu | None, workers: int) -> float:
        """GB that each of `workers` on a card may use."""
        if card is None or self.per_gpu is None:
            return self.memory_gb
        return min(float(card.total_bytes * USABLE) / GB / workers, self.most_gb)


def plan_layout(gpus: Iterable[Gpu], cpu: Cpu, rule: Rule, speakers: int | None, workers: int | None) -> Layout:
    """The workers of a box, numbered card by card.

    By memory, a card holds ``max(1, floor(total_GB * 0.9 / memory_gb))`` workers (GB of 1024**3 bytes); without
    GPUs the machine's memory holds as many, but at most one a core. `workers` overrides the rule, spread evenly;
    `speakers` limits the sum, filling the cards evenly. Raises `BadSetting` if either is below one, or if there
    would be more than `MOST_WORKERS` a card, and more than the rule allows.
    """
    for option, value in (("--workers", workers), ("--speakers", speakers)):
        if value is not None and value < 1:
            raise BadSetting(f"{option} {value} makes no sense: give 1 or more, or leave it out")
    cards: list[Gpu | None] = [*gpus] or [None]
    rooms = [rule.room(card, cpu) for card in cards]
    wanted = sum(rooms) if workers is None else workers
    total = wanted if speakers is None else min(wanted, speakers)
    most = max(sum(rooms), MOST_WORKERS * len(rooms))
    if total > most:  # each is two processes, which take memory at once
        raise BadSetting(f"--workers {workers} is more than this box can run: give {most} or fewer")
    counts = _spread(total, rooms if workers is None else [total] * len(rooms))
    places = tuple(Place(card, room, count) for card, room, count in zip(cards, rooms, counts, strict=True))
    threads = max(1, cpu.cores // total)
    seats = [
        (place.gpu, number, rule.share(place.gpu, place.workers)) for place in places for number in range(place.workers)
    ]
    specs = tuple(_spec(index, *seat, threads) for index, seat in enumerate(seats))
    return Layout(cpu, places, specs)


def _room(total_bytes: int, memory_gb: float) -> int:
    # Exact: 3.3 * 0.9 / 0.33 is 9, and 8.99 in floating point.
    return max(1, math.floor(Fraction(total_bytes, GB) * USABLE / Fraction(str(memory_gb))))


def _spread(total: int, rooms: list[int]) -> list[int]:
    """`total` workers over places with `rooms`, as evenly as these allow, earlier places first."""
    counts = [0] * len(rooms)
    for _ in range(total):
        open_places = [place for place, room in enumerate(rooms) if counts[place] < room]
        counts[min(open_places, key=counts.__getitem__)] += 1
    return counts


def _spec(index: int, gpu: Gpu | None, number: int, memory_gb: float, threads: int) -> WorkerSpec:
    if gpu is None:
        return WorkerSpec(index, "cpu", number, "cpu", gpu="", pin="", threads=threads, memory_gb=memory_gb)
    device = f"cuda:{gpu.index}"
    return WorkerSpec(index, gpu.card, number, device, gpu.name, gpu.pin, threads=threads, memory_gb=memory_gb)
