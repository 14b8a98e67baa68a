"""The share of a batch's segments that would fail the review, estimated from a random sample of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from statistics import NormalDist

MOST_SAMPLED = 200
"""Segments of a sample at most. With none of 200 failed, at most 1.9% of the batch would fail."""

CONFIDENCE = 0.95
"""The part of all samples whose interval has the batch's true rate in it."""


def choose_sample(segments: Iterable[int], seed: int, most: int = MOST_SAMPLED) -> list[int]:
    """At most so many of the segments, in order, chosen by the batch's seed: the same ones each time, and mostly
    the same ones when the batch has a few segments more or less."""
    return sorted(heapq.nsmallest(most, segments, key=lambda segment: _rank(seed, segment)))


def _rank(seed: int, segment: int) -> bytes:
    return sha256(f"review/{seed}/{segment}".encode()).digest()


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """An estimate of a rate, and the interval that it is in, 0 to 1."""

    estimate: float
    low: float
    high: float


def estimate_error_rate(failed: int, reviewed: int) -> ErrorRate:
    """The rate of which `failed` of `reviewed` segments of a random sample speak, with Wilson's score interval.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212. It
    holds for small samples and for rates near 0, too. Raises `ValueError` if there is no sample, or more failed.
    """
    if not 0 <= failed <= reviewed or not reviewed:
        raise ValueError(f"{failed} of {reviewed} segments failed, and from 0 to all of at least one can")
    rate = failed / reviewed
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    weight = 1 + z * z / reviewed
    centre = (rate + z * z / (2 * reviewed)) / weight
    half = z * sqrt(rate * (1 - rate) / reviewed + z * z / (4 * reviewed**2)) / weight
    return ErrorRate(rate, max(0.0, centre - half), min(1.0, centre + half))


def error_rate_of_batch(*, total: int, failed: int, unknown: int, sampled: int, sampled_failed: int) -> ErrorRate:
    """The rate of a batch of `total` segments, of which so many are known to have `failed`, and so many are `unknown`.

    The unknown ones fail as often as those of a random sample of their like. Without one, they fail as often as the
    others, and it is only known that from none to all of them do; not all may be unknown then.
    """
    if not sampled:
        return ErrorRate(failed / (total - unknown), failed / total, (failed + unknown) / total)
    rate = estimate_error_rate(sampled_failed, sampled)
    return ErrorRate(*((failed + unknown * part) / total for part in (rate.estimate, rate.low, rate.high)))
