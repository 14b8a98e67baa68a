"""What the trial of kernels compares: it passes right kernels, and finds a wrong one of each family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernel_trial.child import CodecTrial, Plan, answer, make_cases
from cloner.engine.kernel_trial.processes import Mode
from cloner.engine.kernel_trial.step_cases import StepCases, row_error
from cloner.engine.kernels.codec.kernel_set import TWINS as CODEC_TWINS
from cloner.engine.kernels.codec.kernel_set import CodecKernels
from cloner.engine.kernels.step.kernel_set import TRITON, TWINS, KernelSet
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.token_rows.weights import ModelSizes
from tests.support.engine_requests import CPU
from tests.unit.engine.kernel_trial.plans import SM90, step_plan

META = torch.device("meta")
FAMILIES = [each.name for each in fields(KernelSet)]


@pytest.fixture(autouse=True)
def _inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


def flawed(cases: StepCases, *, all_forms: bool = False) -> set[str]:
    """Families with a case that has a flaw; only the first of each is tried unless it is to be `all_forms`."""
    firsts = {family: name for name, family in reversed(cases.families.items())}
    names = list(cases.families) if all_forms else list(firsts.values())
    return {cases.families[name] for name in names if cases.flaw(name)}


@pytest.mark.slow
def test_right_kernels_have_no_flaw() -> None:
    """In Triton's interpreter."""
    cases = StepCases(step_plan(), SM90, CPU, TRITON)
    assert set(cases.families.values()) == set(FAMILIES)
    assert flawed(cases, all_forms=True) == set()


@pytest.mark.slow
def test_twins_have_no_flaw_in_any_form() -> None:
    cases = StepCases(step_plan(20, deterministic=False), SM90, CPU, TWINS)
    assert Counter(cases.families.values())["linear"] > 10
    assert flawed(cases, all_forms=True) == set()


def off_in_one_row(family: str, *arguments: Any, **options: Any) -> None:
    """The twin, and then one number of what it writes is wrong."""
    getattr(TWINS, family)(*arguments, **options)
    x = {"embed": 3, "linear": 2, "sample_first": 5, "sample_next": 4}.get(family, 1)
    written: Tensor = arguments[x]
    written[1].mul_(1.1)


def other_choice(family: str, *arguments: Any, **options: Any) -> None:
    getattr(TWINS, family)(*arguments, **options)
    arguments[2].generated[:, :, :] += 1


def silent(_family: str, *_arguments: Any, **_options: Any) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "fault"),
    [(family, fault) for family in FAMILIES for fault in (off_in_one_row, silent)]
    + [("sample_first", other_choice), ("sample_next", other_choice)],
)
def test_a_wrong_kernel_is_found_and_no_other_is_blamed(family: str, fault: Any) -> None:
    tried = replace(TWINS, **{family: partial(fault, family)})
    assert flawed(StepCases(step_plan(), SM90, CPU, tried)) == {family}


def test_a_counter_that_is_not_reset_is_found() -> None:
    def careless(*arguments: Any, **options: Any) -> None:
        TWINS.linear(*arguments, **options)
        arguments[5].arrived[0] = 1

    assert flawed(StepCases(step_plan(), SM90, CPU, replace(TWINS, linear=careless))) == {"linear"}


def test_a_choice_at_a_border_may_differ_once() -> None:
    calls = 0

    def rounded(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        (partial(other_choice, "sample_first") if calls == 1 else TWINS.sample_first)(*arguments, **options)

    assert flawed(StepCases(step_plan(), SM90, CPU, replace(TWINS, sample_first=rounded))) == set()
    assert calls == 2


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_infinitely_wrong(value: float) -> None:
    expected = torch.ones(3, 4)
    found = expected.clone()
    found[1, 2] = value
    assert row_error(found, expected) == torch.inf
    assert row_error(expected, expected) == 0
    assert row_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_all_devices_have_the_same_cases_whose_names_are_their_order(deterministic: bool) -> None:
    plan = step_plan(8, deterministic=deterministic)
    assert StepCases(plan, SM90, META).families == StepCases(plan, SM90, CPU).families


def test_cases_that_are_only_compiled_leave_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that makes them forks others, and CUDA is of no use in a fork of a process that has started it."""
    started = MagicMock(side_effect=RuntimeError("CUDA was started"))
    for name in ("_lazy_init", "is_available", "device_count", "get_device_properties"):
        monkeypatch.setattr(torch.cuda, name, started)
    (step, codec) = make_cases(Plan(step_plan(), codec=True, gpu=SM90, device="cuda"), Mode.COMPILE)
    assert step.families
    assert codec.families
    assert not started.called


def test_more_slots_have_more_forms_up_to_all_tiles() -> None:
    counts = [len(StepCases(step_plan(slots, deterministic=False), SM90, META).families) for slots in (1, 16, 128)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("slots", [1, 10, 33, 55, 63, 100])
def test_fewer_slots_than_planned_have_no_form_that_was_not_tried(slots: int) -> None:
    def forms(slots: int) -> set[tuple[Any, ...]]:
        plan = replace(step_plan(slots, deterministic=False), sizes=ModelSizes.of_config(CONFIGS[Preset.S1_MINI]))
        launches = StepCases(plan, SM90, META)._launches.values()
        return {tuple(launch.variant() for launch in calls) for calls in launches}

    assert forms(slots) <= forms(128)


def test_the_codecs_cases_find_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloner.engine.kernel_trial.child.CODEC_FRAMES", 5)
    monkeypatch.setattr("cloner.engine.kernel_trial.child.TRITON", replace(CODEC_TWINS, gate=lambda x: x[:, ::2] * 0))
    trial = CodecTrial(Architecture.named(89), CPU)
    assert set(trial.families.values()) == {each.name for each in fields(CodecKernels)}
    small = [name for name, family in trial.families.items() if family not in ("convolve", "apply_unit")]
    assert {name for name in small if trial.flaw(name)} == {"gate quantizer"}


def test_a_codec_of_another_size_has_no_cases() -> None:
    parts = make_cases(Plan(step_plan(), codec=False, gpu=SM90, device="cpu"), Mode.COMPARE)
    assert {family for part in parts for family in part.families.values()} == set(FAMILIES)


@pytest.mark.parametrize("mode", list(Mode))
def test_memory_that_runs_out_while_a_kernel_is_loaded_is_not_its_fault(mode: Mode) -> None:
    error = RuntimeError("Triton Error [CUDA]: out of memory")
    cases = MagicMock(flaw=MagicMock(side_effect=error), compile=MagicMock(side_effect=error))
    assert answer(mode, cases, "linear") == {"unfinished": f"RuntimeError: {error}", "ended": "yes"}
