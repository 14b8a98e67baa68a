from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from cloner.errors import BadSetting, NoUsableGpu
from launcher import gpus
from launcher.gpus import GB, Gpu, described_gpu, find_gpus


class NvmlError(Exception):
    pass


class NotSupportedError(NvmlError):
    pass


class NotFoundError(NvmlError):
    pass


class LibraryNotFoundError(NvmlError):
    pass


@dataclass
class Card:
    uuid: str
    name: str = "NVIDIA GeForce RTX 4090"
    total_gb: int = 24
    free_gb: int = 23
    mig: bool | None = None
    """None: a card without MIG."""
    instances: list[Card | None] = field(default_factory=list)
    broken: bool = False


class FakeNvml:
    """The functions of `pynvml` that are used, over `Card`s; handles are the cards themselves."""

    NVMLError = NvmlError
    NVMLError_NotSupported = NotSupportedError
    NVMLError_FunctionNotFound = type("FunctionNotFound", (NvmlError,), {})
    NVMLError_NotFound = NotFoundError
    NVMLError_InvalidArgument = type("InvalidArgument", (NvmlError,), {})
    NVMLError_LibraryNotFound = LibraryNotFoundError
    NVMLError_DriverNotLoaded = type("DriverNotLoaded", (NvmlError,), {})
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *cards: Card, init_error: NvmlError | None = None) -> None:
        self.cards = cards
        self.init_error = init_error
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error:
            raise self.init_error
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Card:  # noqa: N802
        if self.cards[number].broken:
            raise NvmlError("GPU is lost")
        return self.cards[number]

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return card.name

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> SimpleNamespace:  # noqa: N802
        if card.mig:
            raise NvmlError("Insufficient Permissions")
        return SimpleNamespace(total=card.total_gb * GB, free=card.free_gb * GB)

    def nvmlDeviceGetMigMode(self, card: Card) -> list[int]:  # noqa: N802
        if card.mig is None:
            raise NotSupportedError("Not Supported")
        return [int(card.mig), int(card.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: Card) -> int:  # noqa: N802
        return len(card.instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Card, slot: int) -> Card:  # noqa: N802
        instance = card.instances[slot]
        if instance is None:
            raise NotFoundError("Not Found")
        return instance


A = "GPU-5fd4f087-86f3-7a43-b711-4771313afc50"
B = "GPU-6ad1b2c3-0000-1111-2222-333344445555"
C = "GPU-77e0a0b0-0000-1111-2222-333344445555"
M0 = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
M1 = "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"


def install(monkeypatch: pytest.MonkeyPatch, *cards: Card, init_error: NvmlError | None = None) -> FakeNvml:
    nvml = FakeNvml(*cards, init_error=init_error)
    monkeypatch.setattr(gpus, "pynvml", nvml)
    return nvml


def mig_card() -> Card:
    instances = [
        Card(M0, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40, 39),
        None,
        Card(M1, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10, 9),
    ]
    return Card(A, "NVIDIA H100 80GB HBM3", 80, 79, mig=True, instances=instances)


def test_cards_are_listed_with_name_uuid_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = install(monkeypatch, Card(A), Card(B, "NVIDIA L4", 22, 10, mig=False))

    assert find_gpus({}) == [
        Gpu(0, "NVIDIA GeForce RTX 4090", A, 24 * GB, 23 * GB),
        Gpu(1, "NVIDIA L4", B, 22 * GB, 10 * GB),
    ]
    assert nvml.open == 0


def test_a_card_is_pinned_by_its_uuid_and_named_by_the_start_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Card(A))

    [gpu] = find_gpus({})

    assert (gpu.pin, gpu.card) == (A, "GPU-5fd4f087")


def test_without_the_package_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "pynvml", None)

    assert find_gpus({}) == []


def test_without_the_driver_there_are_no_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, init_error=LibraryNotFoundError("NVML Shared Library Not Found"))

    assert find_gpus({}) == []
    assert capsys.readouterr().err == ""


def test_an_error_of_the_driver_is_no_box_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, init_error=NvmlError("RM has detected an NVML/RM version mismatch."))

    with pytest.raises(
        NoUsableGpu, match=r"can be used, NVML says: RM has detected an NVML/RM version mismatch\.: see"
    ):
        find_gpus({})


@pytest.mark.parametrize("visible", ["", "-1", "-1,0"])
def test_the_cpu_is_used_where_all_gpus_are_hidden_whatever_state_they_are_in(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    install(monkeypatch, init_error=NvmlError("GPU is lost"))

    assert find_gpus({"CUDA_VISIBLE_DEVICES": visible}) == []


@pytest.mark.parametrize("card", [Card(A, broken=True), Card(A, mig=True, instances=[None])])
@pytest.mark.parametrize("chosen", [({}, None), ({"CUDA_VISIBLE_DEVICES": "0"}, None), ({}, "0")])
def test_a_box_whose_only_gpu_is_lost_does_not_become_a_box_without_gpus(
    monkeypatch: pytest.MonkeyPatch, card: Card, chosen: tuple[dict[str, str], str | None]
) -> None:
    install(monkeypatch, card)

    with pytest.raises(
        NoUsableGpu, match="none of this box's GPUs can be used, as the warnings say: see what `nvidia-"
    ):
        find_gpus(*chosen)


def test_a_card_that_nvml_cannot_read_is_left_out_and_the_others_keep_their_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Card(A, broken=True), Card(B))

    assert [(gpu.index, gpu.uuid) for gpu in find_gpus({})] == [(1, B)]
    assert "[GPU 0] is left out, NVML says: GPU is lost" in capsys.readouterr().err


def test_a_card_with_mig_is_listed_as_its_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mig_card(), Card(B))

    assert [(gpu.index, gpu.uuid, gpu.name, gpu.total_bytes // GB) for gpu in find_gpus({})] == [
        (0, M0, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40),
        (1, M1, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10),
        (2, B, "NVIDIA GeForce RTX 4090", 24),
    ]


def test_a_card_with_mig_and_no_instance_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Card(A, mig=True, instances=[None]), Card(B))

    assert [(gpu.index, gpu.uuid) for gpu in find_gpus({})] == [(1, B)]
    assert "[GPU 0] is left out: MIG is on, but the card has no MIG instance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", [B]),
        ("2, 0", [C, A]),
        (f"{B},{A}", [B, A]),
        ("GPU-77", [C]),
        ("0,0,GPU-5fd4", [A]),
        ("1,-1,0", [B]),
        ("-1", []),
        ("", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(
    monkeypatch: pytest.MonkeyPatch, visible: str, uuids: list[str]
) -> None:
    install(monkeypatch, Card(A), Card(B), Card(C))

    assert [gpu.uuid for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": visible})] == uuids


@pytest.mark.parametrize(
    ("visible", "uuids"), [("0", [M0, M1]), ("GPU-5fd4f087", [M0, M1]), (M1, [M1]), ("1", [B]), (f"1,{M0}", [B, M0])]
)
def test_cuda_visible_devices_names_mig_instances_or_their_card(
    monkeypatch: pytest.MonkeyPatch, visible: str, uuids: list[str]
) -> None:
    install(monkeypatch, mig_card(), Card(B))

    assert [gpu.uuid for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": visible})] == uuids


def test_a_visible_card_that_nvml_cannot_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Card(A, broken=True), Card(B), Card(C))

    assert [gpu.uuid for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": "0,2"})] == [C]


@pytest.mark.parametrize("name", ["3", "GPU-99", "MIG-99", "G", "first"])
def test_cuda_visible_devices_that_names_no_card_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch, Card(A), Card(B), Card(C))

    with pytest.raises(BadSetting, match=f"CUDA_VISIBLE_DEVICES=0,{name} names {name}, which this box does not have"):
        find_gpus({"CUDA_VISIBLE_DEVICES": f"0,{name}"})


@pytest.mark.parametrize(
    ("visible", "only", "uuids"),
    [
        (None, "0,2", [A, C]),
        (None, f"{C}, 1", [C, B]),
        ("2,1", "1", [B]),
        ("GPU-77,GPU-5f", "0,2", [A, C]),
    ],
)
def test_a_setting_chooses_among_the_gpus_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, only: str, uuids: list[str]
) -> None:
    install(monkeypatch, Card(A), Card(B), Card(C))
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.uuid for gpu in find_gpus(environ, only)] == uuids


def test_the_setting_names_mig_instances_or_their_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, mig_card(), Card(B))
    assert [gpu.uuid for gpu in find_gpus({}, "0")] == [M0, M1]
    assert [gpu.uuid for gpu in find_gpus({}, f"1,{M1}")] == [B, M1]


def test_the_setting_must_name_gpus_that_are_there_and_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Card(A), Card(B))
    with pytest.raises(BadSetting, match="CLONER_GPUS=0,2 names 2, which this box does not have: give numbers or"):
        find_gpus({}, "0,2")
    with pytest.raises(BadSetting, match="CLONER_GPUS=0,1 names GPU 0, which CUDA_VISIBLE_DEVICES=1 hides"):
        find_gpus({"CUDA_VISIBLE_DEVICES": "1"}, "0,1")
    install(monkeypatch, init_error=LibraryNotFoundError("NVML Shared Library Not Found"))
    with pytest.raises(BadSetting, match="CLONER_GPUS=0 names 0, which this box does not have"):
        find_gpus({}, "0")


def test_a_described_gpu_has_a_size_and_is_pinned_by_its_number() -> None:
    gpu = described_gpu("NVIDIA GeForce RTX 4090:24", 3)

    assert gpu == Gpu(3, "NVIDIA GeForce RTX 4090", "", 24 * GB, 24 * GB)
    assert (gpu.pin, gpu.card) == ("3", "gpu3")


@pytest.mark.parametrize(
    "text", ["", "24", "RTX 4090", ":24", "RTX:", "RTX:much", "RTX:0", "RTX:-1", "RTX:inf", "RTX:nan", "RTX 4090:24564"]
)
def test_a_malformed_gpu_description_is_an_error(text: str) -> None:
    with pytest.raises(
        BadSetting, match='is not a name and a size in GB: write NAME:GB, as in "NVIDIA GeForce RTX 4090:24"'
    ):
        described_gpu(text, 0)
