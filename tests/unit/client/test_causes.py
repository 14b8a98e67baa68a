"""Which options make a batch generate again what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cloner.batch import (
    AudioFormat,
    AudioOptions,
    Batch,
    Generation,
    Reference,
    ReferenceKind,
    Segment,
    Speaker,
    SpeechOptions,
    segment_seeds,
)
from cloner.client.causes import find_causes
from cloner.protocol.content_key import wanted_outputs
from cloner.protocol.messages import ReferenceRow, SpeakerRow

PLAIN = SpeechOptions(generation=Generation(), audio=AudioOptions(), engine="fake", fingerprint="none")


def with_audio(**audio: object) -> SpeechOptions:
    return PLAIN.model_copy(update={"audio": AudioOptions(**audio)})  # type: ignore[arg-type]


def with_generation(**generation: object) -> SpeechOptions:
    return PLAIN.model_copy(update={"generation": Generation(**generation)})  # type: ignore[arg-type]


def batch(options: SpeechOptions, texts: int = 3) -> Batch:
    segments = tuple(Segment(n, f"Text {n}.", f"anna/{n}.{options.audio.format}") for n in range(texts))
    speaker = Speaker("anna", Reference(ReferenceKind.CODES, (), "Hello."), segments)
    return Batch(Path("b.json"), (speaker,), options.generation, options.audio)


def rows(whole: Batch) -> list[SpeakerRow]:
    reference = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")
    return [
        SpeakerRow(
            id=speaker.id,
            reference=reference,
            segments=[
                (segment.index, segment.text, segment.output, seed)
                for segment, seed in zip(speaker.segments, segment_seeds(speaker, whole.generation.seed), strict=True)
            ],
        )
        for speaker in whole.speakers
    ]


def written(options: SpeechOptions, texts: int = 3) -> dict[str, str]:
    """What a batch with these options has written, with the content keys."""
    whole = batch(options, texts)
    return wanted_outputs(rows(whole), options)


def causes(
    options: SpeechOptions, *earlier: SpeechOptions, there: Mapping[str, str], whole: Batch | None = None
) -> list[str]:
    whole = whole or batch(options)

    def find(wanted: Mapping[str, str]) -> list[str]:
        return [output for output, key in wanted.items() if there.get(output) == key]

    own = wanted_outputs(rows(whole), options)
    found = find_causes(whole, rows(whole), options, earlier=earlier, finished=find(own), find=find)
    return list(map(str, found))


SAID = "{} of 3 outputs are there, but with another {}: they are generated again"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (with_audio(loudness=-16), "loudness"),
        (with_audio(trim=True, rate=8_000), "rate and another trim"),
        (with_audio(format=AudioFormat.MP3), "format"),
        (with_audio(format=AudioFormat.MP3, loudness=-16), "format and another loudness"),
        (with_generation(temperature=0.5), "temperature"),
        (with_generation(seed=4), "seed"),
        (with_generation(max_new_tokens=20, min_new_tokens=20), "min_new_tokens and another max_new_tokens"),
        (PLAIN.model_copy(update={"engine": "batched"}), "engine"),
        (PLAIN.model_copy(update={"fingerprint": "f00d"}), "checkpoint"),
    ],
)
def test_options_that_differ_are_named(options: SpeechOptions, named: str) -> None:
    assert causes(options, PLAIN, there=written(PLAIN)) == [SAID.format(3, named)]
    assert causes(PLAIN, options, there=written(options)) == [SAID.format(3, named)]


def test_what_is_not_heard_is_not_named() -> None:
    longer = with_generation(max_new_tokens=2000, temperature=0.5)
    assert causes(longer, PLAIN, there=written(PLAIN)) == [SAID.format(3, "temperature")]
    assert causes(with_generation(max_new_tokens=2000), PLAIN, there=written(PLAIN)) == []


def test_only_what_is_there_is_counted() -> None:
    assert causes(with_audio(trim=True), PLAIN, there=written(PLAIN, texts=2)) == [SAID.format(2, "trim")]
    assert causes(with_audio(trim=True), PLAIN, there={}) == []


def test_a_text_that_was_changed_too_is_not_named() -> None:
    whole = batch(with_audio(trim=True))
    (speaker,) = whole.speakers
    first, *others = speaker.segments
    changed = replace(speaker, segments=(replace(first, text="Another."), *others))
    whole = replace(whole, speakers=(changed,))
    assert causes(with_audio(trim=True), PLAIN, there=written(PLAIN), whole=whole) == [SAID.format(2, "trim")]


def test_each_output_has_one_cause_that_of_the_latest_batch() -> None:
    first, second = with_audio(loudness=-20), with_audio(rate=8_000)
    there = {**written(first), **written(second, texts=1)}
    assert causes(PLAIN, second, PLAIN, first, there=there) == [SAID.format(1, "rate"), SAID.format(2, "loudness")]
    assert causes(PLAIN, first, there=written(PLAIN)) == []


def test_the_format_is_not_named_where_the_outputs_have_that_of_their_names() -> None:
    named = batch(PLAIN)
    earlier = with_audio(format=AudioFormat.MP3)
    options = with_audio(loudness=-16)
    there = wanted_outputs(rows(named), earlier)
    assert causes(options, earlier, there=there, whole=named) == [SAID.format(3, "loudness")]
