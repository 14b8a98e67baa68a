"""Content keys: what changes them, and what does not."""

from __future__ import annotations

import re

import pytest

from cloner.batch import AudioFormat, AudioOptions, Generation, ReferenceKind, SpeechOptions
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ReferenceRow, SpeakerRow
from cloner.protocol.rows import SegmentRow

REFERENCE = ReferenceRow(kind=ReferenceKind.CODES, digest="d1" * 32, text="Hello.")


def speaker(digest: str = REFERENCE.digest, text: str = REFERENCE.text) -> SpeakerRow:
    reference = REFERENCE.model_copy(update={"digest": digest, "text": text})
    return SpeakerRow(id="anna", reference=reference, segments=[])


ANNA = speaker()


def keys_of(
    generation: Generation | None = None,
    audio: AudioOptions | None = None,
    engine: str = "fake",
    fingerprint: str = "none",
) -> ContentKeys:
    options = SpeechOptions(
        generation=generation or Generation(), audio=audio or AudioOptions(), engine=engine, fingerprint=fingerprint
    )
    return ContentKeys(options)


KEYS = keys_of()
KEY = KEYS.of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7))

OTHERS = {
    "text": KEYS.of(ANNA, SegmentRow(3, "Good evening.", "a/3.wav", 7)),
    "seed": KEYS.of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 8)),
    "reference": KEYS.of(speaker(digest="d2" * 32), SegmentRow(3, "Good morning.", "a/3.wav", 7)),
    "reference's text": KEYS.of(speaker(text="Hello!"), SegmentRow(3, "Good morning.", "a/3.wav", 7)),
    "fixed length": keys_of(Generation(min_new_tokens=12, max_new_tokens=12)).of(
        ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)
    ),
    "least length": keys_of(Generation(min_new_tokens=12)).of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)),
    "parameters": keys_of(Generation(top_p=0.8)).of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)),
    "engine": keys_of(engine="batched").of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)),
    "checkpoint": keys_of(fingerprint="f00d").of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_heard_changes_the_key(what: str) -> None:
    assert OTHERS[what] != KEY
    assert re.fullmatch(r"[0-9a-f]{64}", OTHERS[what])


def test_all_keys_differ_from_each_other() -> None:
    assert len({KEY, *OTHERS.values()}) == len(OTHERS) + 1


def test_neither_the_index_nor_the_batchs_seed_nor_the_greatest_length_changes_the_key() -> None:
    assert KEYS.of(ANNA, SegmentRow(4, "Good morning.", "a/3.wav", 7)) == KEY
    for generation in (Generation(seed=1), Generation(max_new_tokens=2000)):
        assert keys_of(generation).of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)) == KEY


def test_the_files_name_does_not_change_the_key() -> None:
    assert KEYS.of(ANNA, SegmentRow(3, "Good morning.", "elsewhere.flac", 7)) == KEY
    assert keys_of().of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)) == KEY


def test_what_one_field_ends_with_is_not_what_the_next_begins_with() -> None:
    one = KEYS.of(speaker(digest='d", "x'), SegmentRow(1, "y", "", 7))
    other = KEYS.of(speaker(digest="d"), SegmentRow(1, "y", "", 7))
    assert one != other


def test_how_pieces_are_joined_is_part_of_the_keys_of_long_texts_alone() -> None:
    long = SegmentRow(3, "A sentence of a long text. " * 20, "a/3.wav", 7)
    others = [Generation(piece_s=10.0), Generation(pause_s=0.5), Generation(paragraph_pause_s=2.0)]
    keys = {keys_of(generation).of(ANNA, long) for generation in (Generation(), *others)}
    assert len(keys) == 4
    for generation in others:
        assert keys_of(generation).of(ANNA, SegmentRow(3, "Good morning.", "a/3.wav", 7)) == KEY


@pytest.mark.parametrize(
    ("language", "changes"),
    [("it", True), ("pt-BR", True), ("en", False), ("de-AT", False), ("zh", False), ("", False)],
)
def test_a_language_with_rules_of_its_own_for_sentences_is_part_of_the_keys_of_long_texts_alone(
    language: str, changes: bool
) -> None:
    long, paused = "A sentence of a long text. " * 20, "Good[pause:1] morning."
    speaking = ANNA.model_copy(update={"language": language})
    for text, may_change in ((long, True), (paused, False), ("Good morning.", False)):
        row = SegmentRow(3, text, "a/3.wav", 7)
        assert (KEYS.of(speaking, row) != KEYS.of(ANNA, row)) == (changes and may_change)
    other = ANNA.model_copy(update={"language": "en", "other_languages": [(3, language)]})
    assert KEYS.of(other, SegmentRow(3, long, "", 7)) == KEYS.of(speaking, SegmentRow(3, long, "", 7))
    assert KEYS.of(other, SegmentRow(4, long, "", 7)) == KEYS.of(ANNA, SegmentRow(4, long, "", 7))


def key_with(output: str = "a/3.wav", **audio: object) -> str:
    keys = keys_of(audio=AudioOptions(**audio))  # type: ignore[arg-type]
    return keys.of(ANNA, SegmentRow(3, "Good morning.", output, 7))


def test_the_key_of_a_batch_without_options_stays_what_it_was() -> None:
    """Or all that was generated before there were any would be generated again."""
    assert KEY == "f17b25313f09fe52874c6ff5e3da8ae3b92c17979c4b74ba61aa63fb5b095650"


def test_each_option_that_changes_the_sound_changes_the_key() -> None:
    changed = [key_with(rate=24_000), key_with(rate=48_000), key_with(loudness=-16), key_with(loudness=-17)]
    changed += [key_with(trim=True), key_with(trim=True, loudness=-16)]
    assert len({KEY, *changed}) == 7
    assert key_with(loudness=-16) == key_with(loudness=-16.0)


@pytest.mark.parametrize(
    ("output", "rate"), [("3.wav", 44_100), ("3.opus", 48_000), ("3.MP3", 44_100), ("3.flac", None)]
)
def test_a_rate_that_the_file_has_anyway_does_not_change_the_key(output: str, rate: int | None) -> None:
    assert key_with(output, rate=rate) == KEY


def test_the_format_does_not_change_the_key() -> None:
    """What looks for a key looks for a file with the ending, too."""
    assert key_with(format=AudioFormat.MP3) == KEY
