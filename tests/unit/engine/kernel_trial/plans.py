"""A trial's plan that a CPU can compute."""

from __future__ import annotations

from cloner.engine.checkpoint.presets import CONFIGS, Preset
from cloner.engine.kernel_trial.child import Plan
from cloner.engine.kernel_trial.step_cases import StepPlan
from cloner.engine.kernels.step.tiles import Architecture
from cloner.engine.token_rows.weights import ModelSizes

SM90 = Architecture.named(90)


def step_plan(slots: int = 2, *, deterministic: bool = True, precision: str = "float32") -> StepPlan:
    sizes = ModelSizes.of_config(CONFIGS[Preset.TINY])
    return StepPlan(sizes, slots, frames=8, deterministic=deterministic, resampling=True, precision=precision)


def plan() -> Plan:
    return Plan(step_plan(), codec=False, gpu=SM90, device="cpu")
