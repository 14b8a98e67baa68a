"""Languages of texts: what is wrong with one that is none, in every form that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.cli.options import language_of
from cloner.errors import UsageError
from cloner.input.batch_file import read_batch
from cloner.input.rows import ReadOptions
from cloner.validation import canonical_language, primary_language
from tests.support.batch_files import problems, problems_of_tasks, save_recording, task, write

RIGHT = "give the code of a language, such as 'en', 'de' or 'pt-BR'"


@pytest.mark.parametrize(
    ("language", "problem"),
    [
        ("english", f"'english'; {RIGHT}"),
        ("pt_BR", "'pt_BR'; did you mean 'pt-BR'?"),
        ("", f"''; {RIGHT}"),
        ("e", f"'e'; {RIGHT}"),
        ("en-", f"'en-'; {RIGHT}"),
        ("en us", f"'en us'; {RIGHT}"),
        ("ñn", f"'ñn'; {RIGHT}"),
        ("en" + "-abcdefgh" * 4, f"'{'en' + '-abcdefgh' * 4}'; {RIGHT}"),
        (7, f"7; {RIGHT}"),
        (True, f"true; {RIGHT}"),
        (["en"], f"a list; {RIGHT}"),
    ],
)
def test_what_is_no_language_is_named_with_what_would_be_right(folder: Path, language: object, problem: str) -> None:
    tasks = [task(0, language="en"), task(1, language=language), task(2, language=None)]
    assert problems_of_tasks(folder, *tasks) == [f"tasks[1]: language is {problem}"]


def test_all_forms_list_it_with_what_else_is_wrong(folder: Path) -> None:
    reference = "reference: {audio: anna.wav, text: Said.}"
    # YAML takes the code of Norwegian for "false".
    grouped = f"""
    speakers:
      - {{id: anna, language: no, {reference}, texts: [One.]}}
      - {{id: ben, {reference}, texts: [{{text: Two., language: xyzzy}}, 3]}}
    """
    assert problems(write(folder / "b.yaml", grouped)) == [
        f"speakers[0]: language is no, which YAML reads as false; {RIGHT}, in quotes",
        f"speakers[1].texts[0]: language is 'xyzzy'; {RIGHT}",
        "speakers[1].texts[1]: it is 3; give the text to speak, in quotes",
    ]
    save_recording(folder / "one.wav")
    assert problems(write(folder / "b.list", "one.wav|anna|ENGLISH|One.\none.wav|ben|EN")) == [
        f"line 1: language is 'english'; {RIGHT}",
        "line 2: it has 3 parts with | between them; give recording|speaker|language|text",
    ]
    nemo = '{"audio_filepath": "one.wav", "text": "One.", "lang": "en_US"}'
    assert problems(write(folder / "b.jsonl", nemo)) == ["line 1: lang is 'en_US'; did you mean 'en-US'?"]


def test_lists_of_other_programs_have_languages(folder: Path) -> None:
    for name in ("one", "two", "three"):
        save_recording(folder / f"{name}.wav")
    lines = ["one.wav|anna|ZH|One.", "two.wav|anna|JP|Two.", "three.wav|anna||Three."]
    sovits = write(folder / "b.list", "\n".join(lines))
    nemo = write(
        folder / "b.jsonl",
        '{"audio_filepath": "one.wav", "text": "One.", "lang": "de"}\n{"audio_filepath": "two.wav", "text": "Two."}',
    )
    for path, expected in ((sovits, ["zh", "ja", ""]), (nemo, ["de", ""])):
        batch = read_batch(path, out_root=None, references=None)
        assert [segment.language for speaker in batch.speakers for segment in speaker.segments] == expected


@pytest.mark.parametrize(
    ("name", "content", "languages"),
    [
        ("b.txt", "One.\nTwo.", ["de", "de"]),
        ("b.srt", "1\n00:00:00,000 --> 00:00:01,000\nOne.", ["de"]),
        ("metadata.csv", "one|One.", ["de"]),
        ("b.list", "one.wav|anna|EN|One.\ntwo.wav|anna||Two.", ["en", "de"]),
    ],
)
def test_texts_of_which_the_file_names_no_language_have_that_of_the_command(
    folder: Path, name: str, content: str, languages: list[str]
) -> None:
    for recording in ("one.wav", "two.wav", "wavs/one.wav"):
        save_recording(folder / recording)
    reference = folder / "anna.wav" if name.endswith(("txt", "srt")) else None
    options = ReadOptions(reference=reference, reference_text="Said." if reference else None, language="de")
    batch = read_batch(write(folder / name, content), out_root=None, references=None, options=options)
    assert [segment.language for speaker in batch.speakers for segment in speaker.segments] == languages


def test_the_language_of_a_command_is_checked() -> None:
    assert (language_of(None), language_of("EN"), language_of("pt-br")) == (None, "en", "pt-BR")
    with pytest.raises(UsageError, match=r"--language 'pt_BR' is no code of a language: did you mean 'pt-BR'\?"):
        language_of("pt_BR")


@pytest.mark.parametrize(
    ("tag", "canonical", "primary"),
    [
        ("EN", "en", "en"),
        ("zh-hant-tw", "zh-Hant-TW", "zh"),
        ("SL-rozaj-1994", "sl-rozaj-1994", "sl"),
        ("haw", "haw", "haw"),
    ],
)
def test_a_language_is_written_in_one_way(tag: str, canonical: str, primary: str) -> None:
    assert canonical_language(tag) == canonical
    assert canonical_language(canonical) == canonical
    assert primary_language(tag) == primary
