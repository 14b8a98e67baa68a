"""Content keys: what changes them, and what does not."""

from __future__ import annotations

import re

import pytest

from cloner.batch import Generation, ReferenceKind
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ReferenceRow

ANNA = ReferenceRow(kind=ReferenceKind.CODES, digest="d1" * 32, text="Hello.")
KEYS = ContentKeys(Generation(), "fake", "none")
KEY = KEYS.of(ANNA, (3, "Good morning.", "a/3.wav", 7))

OTHERS = {
    "text": KEYS.of(ANNA, (3, "Good evening.", "a/3.wav", 7)),
    "seed": KEYS.of(ANNA, (3, "Good morning.", "a/3.wav", 8)),
    "reference": KEYS.of(ANNA.model_copy(update={"digest": "d2"}), (3, "Good morning.", "a/3.wav", 7)),
    "reference's text": KEYS.of(ANNA.model_copy(update={"text": "Hello!"}), (3, "Good morning.", "a/3.wav", 7)),
    "fixed length": ContentKeys(Generation(min_new_tokens=12, max_new_tokens=12), "fake", "none").of(
        ANNA, (3, "Good morning.", "a/3.wav", 7)
    ),
    "least length": ContentKeys(Generation(min_new_tokens=12), "fake", "none").of(
        ANNA, (3, "Good morning.", "a/3.wav", 7)
    ),
    "parameters": ContentKeys(Generation(top_p=0.8), "fake", "none").of(ANNA, (3, "Good morning.", "a/3.wav", 7)),
    "engine": ContentKeys(Generation(), "batched", "none").of(ANNA, (3, "Good morning.", "a/3.wav", 7)),
    "checkpoint": ContentKeys(Generation(), "fake", "f00d").of(ANNA, (3, "Good morning.", "a/3.wav", 7)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_heard_changes_the_key(what: str) -> None:
    assert OTHERS[what] != KEY
    assert re.fullmatch(r"[0-9a-f]{64}", OTHERS[what])


def test_all_keys_differ_from_each_other() -> None:
    assert len({KEY, *OTHERS.values()}) == len(OTHERS) + 1


def test_neither_the_index_nor_the_batchs_seed_nor_the_greatest_length_changes_the_key() -> None:
    assert KEYS.of(ANNA, (4, "Good morning.", "a/3.wav", 7)) == KEY
    for generation in (Generation(seed=1), Generation(max_new_tokens=2000)):
        assert ContentKeys(generation, "fake", "none").of(ANNA, (3, "Good morning.", "a/3.wav", 7)) == KEY


def test_the_files_name_does_not_change_the_key() -> None:
    assert KEYS.of(ANNA, (3, "Good morning.", "elsewhere.flac", 7)) == KEY
    assert ContentKeys(Generation(), "fake", "none").of(ANNA, (3, "Good morning.", "a/3.wav", 7)) == KEY


def test_what_one_field_ends_with_is_not_what_the_next_begins_with() -> None:
    one = KEYS.of(ANNA.model_copy(update={"digest": 'd", "x'}), (1, "y", "", 7))
    other = KEYS.of(ANNA.model_copy(update={"digest": "d"}), (1, "y", "", 7))
    assert one != other


def test_how_pieces_are_joined_is_part_of_the_keys_of_long_texts_alone() -> None:
    long = (3, "A sentence of a long text. " * 20, "a/3.wav", 7)
    others = [Generation(piece_s=10.0), Generation(pause_s=0.5), Generation(paragraph_pause_s=2.0)]
    keys = {ContentKeys(generation, "fake", "none").of(ANNA, long) for generation in (Generation(), *others)}
    assert len(keys) == 4
    for generation in others:
        assert ContentKeys(generation, "fake", "none").of(ANNA, (3, "Good morning.", "a/3.wav", 7)) == KEY
