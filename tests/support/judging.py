"""Learning from takes one by one, where the product does so window by window."""

from __future__ import annotations

from cloner.checks.check_set import CheckResult
from cloner.review.heard import Heard
from cloner.review.judge import Judge


def learn_and_judge(judge: Judge, speaker: str, take: Heard) -> CheckResult:
    """Learn from a take, and say what is wrong with it."""
    likeness = judge.likeness(speaker, take)
    judge.learn(speaker, likeness.own if likeness else None, take.naturalness)
    return judge.judge(speaker, take, likeness)
