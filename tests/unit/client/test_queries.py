"""Requests to the collector about large batches."""

from __future__ import annotations

import random

from kombu.utils.json import dumps

from cloner.client import queries
from cloner.protocol.messages import MAX_MESSAGE_BYTES
from cloner.protocol.queries import FinishedRequest


def test_each_request_about_a_large_batch_fits_into_a_message() -> None:
    rng = random.Random(0)
    names = "".join(map(chr, range(0x20, 0x3000)))
    wanted = {"".join(rng.choices(names, k=60)) + ".wav": rng.randbytes(32).hex() for _ in range(150_000)}
    parts = list(queries.parts(wanted))
    assert len(parts) > 1
    assert {output: key for part in parts for output, key in part.items()} == wanted
    for part in parts:
        request = dumps(  # type: ignore[no-untyped-call]
            [[FinishedRequest(wanted=part).pack(), 1.0], {}, {}]
        )
        assert 4 / 3 * len(request) < MAX_MESSAGE_BYTES * 0.95


def test_a_request_about_no_output_is_one_request() -> None:
    assert list(queries.parts({})) == [{}]
    assert list(queries.parts({"a.wav": "k"})) == [{"a.wav": "k"}]
