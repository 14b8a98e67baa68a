"""All checks of a take, with their limits, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cloner.checks.catalogue import CHECKS, Check, LimitedCheck
from cloner.checks.measures import Measures
from cloner.checks.usual import Usual
from cloner.errors import BadSetting, CheckBroken

MOST_SUSPICION = 1_000.0
"""The suspicion of a take that fails a check whose limit is 0: no other attempt is worse."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the checks say of a take."""

    failed: tuple[str, ...]
    """Names of the checks that failed."""
    sentences: tuple[str, ...]
    """A sentence for each of them."""
    scores: dict[str, float]
    """Each check's score, by its name; those that do not apply are left out."""
    suspicion: float = 0.0
    """The largest score divided by its limit, 0 to `MOST_SUSPICION`; above 1 where a check failed."""


REVIEW_CHECK_NAMES = (
    "another_voice",
    "unlike",
    "wrong_voice",
    "unnatural",
    "wrong_words",
    "wrong_run",
    "improbable_text",
)
"""Names of the checks of a review, whose limits are set with those of the others."""

PASSED = CheckResult(failed=(), sentences=(), scores={})
"""That nothing is wrong."""


class CheckSet:
    """All checks, with their limits."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        self._checks = [kind(limits.get(kind.name)) for kind in CHECKS]

    def evaluate(
        self, take: Measures, usual: Usual, on_error: Callable[[str, Exception], object] | None = None
    ) -> CheckResult:
        """Check a take, compared with what is usual for its speaker.

        A check that raises is left out, and `on_error` is called with its name; without it, `CheckBroken` is raised.
        """
        scores: dict[Check, float] = {}
        for check in self._checks:
            if check.needs_sound and not take.has_sound:
                continue
            try:
                scores[check] = check.score(take, usual)
            except Exception as error:
                if on_error is None:
                    raise CheckBroken(check.name, error) from error
                on_error(check.name, error)
        return result_of(scores, lambda check, score: check.sentence(score))


AnyCheck = TypeVar("AnyCheck", bound=LimitedCheck)


def result_of(scores: Mapping[AnyCheck, float], sentence: Callable[[AnyCheck, float], str]) -> CheckResult:
    """What checks say of a take by their scores; `sentence` returns what is wrong by one that fails."""
    failed = {check: score for check, score in scores.items() if score > check.limit}
    return CheckResult(
        failed=tuple(check.name for check in failed),
        sentences=tuple(sentence(check, score) for check, score in failed.items()),
        scores={check.name: round(score, 4) for check, score in scores.items()},
        suspicion=max((_suspicion_of(score, check.limit) for check, score in scores.items()), default=0.0),
    )


def _suspicion_of(score: float, limit: float) -> float:
    """How far a score is from its limit, 0 to `MOST_SUSPICION`; above 1 it is beyond."""
    if limit <= 0:
        return MOST_SUSPICION if score > limit else 0.0
    return min(max(score / limit, 0.0), MOST_SUSPICION)


def parse_limits(text: str) -> dict[str, float]:
    """The limits in `CLONER_CHECK_LIMITS`, such as "pause=2.5,level=12". Raises `BadSetting`."""
    limits: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        known = [*(kind.name for kind in CHECKS), *REVIEW_CHECK_NAMES]
        if name not in known:
            checks = ", ".join(known)
            raise BadSetting(f"CLONER_CHECK_LIMITS={text!r}: no check is called {name!r}; the checks are {checks}")
        limits[name] = float(value)
    return limits
