"""Where long texts are split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner.batch import Generation
from cloner.events import Event
from cloner.text.length import estimated_frames, is_speakable, is_split, piece_frames
from cloner.text.splitting import LANGUAGES, WINDOW, Piece, _agreed_ends, split
from tests.support.log_lines import find_lines

GENERATION = Generation()

SENTENCES = {
    "English": [
        "Dr. Smith paid $3.50 at 5 p.m. on Jan. 3rd.",
        "He left, e.g. for the U.S. embassy.",
        '"Really?" she asked.',
    ],
    "French": ["M. Dupont est arrivé à 8 h. 30.", "Il a dit : « Bonjour ! »", "Mme. Martin habite au 12, av. Foch."],
    "Spanish": [
        "El Sr. Gómez llegó a las 5 p.m. ayer.",
        "¿Qué dijo?",
        "Vive en EE. UU. desde 1990.",
        "La Dra. Ruiz no vino.",
    ],
    "German": [
        "Am 3. Mai kam Dr. Müller.",
        "Das ist z. B. richtig.",
        "Er wohnt in der Hauptstr. 5.",
        "Ja, d. h. vielleicht.",
    ],
    "Chinese": ["今天天气很好。", "你去哪儿？", "他说：“我不知道。”", "真的吗？", "是的！"],
    "Japanese": ["今日は天気がいいです。", "どこへ行きますか？", "本当ですか？", "はい！"],
    "Arabic": ["الطقس جميل اليوم.", "إلى أين تذهب؟", "قال: لا أعرف.", "حقا؟", "نعم!"],
}

ABBREVIATED = {
    "it": [
        "Il sig. Rossi è arrivato alle 5.",
        "Il dott. Bianchi e la dott.ssa Verdi sono qui.",
        "Abita in p.za Garibaldi n. 3, ecc. ecc.",
        "Vedi pag. 12 e art. 5 della legge.",
        "«Davvero?» chiese lei.",
        "L'ing. Neri non c'era.",
        "La prof. Russo parla.",
    ],
    "pt": [
        "O Sr. Silva chegou às 5 h. ontem.",
        "A Sra. Costa e o Dr. Lima saíram.",
        "Mora na Av. Brasil, n. 12.",
        "Ver pág. 3 e art. 5.",
        "O Prof. Souza falou.",
        "«Sério?» perguntou ela.",
        "Vive nos EUA desde 1990.",
    ],
    "nl": [
        "Dhr. Jansen kwam om 5 uur.",
        "Mevr. de Vries en dr. Bakker zijn weg.",
        "Dat is bijv. goed.",
        "Hij woont o.a. in Den Haag, nr. 5.",
        "Prof. Smit sprak.",
        "‘Echt?’ vroeg ze.",
        "Zie blz. 3 e.v. in het boek.",
    ],
    "pl": [
        "Pan dr. Kowalski przyszedł o godz. 5.",
        "Mieszka przy ul. Długiej.",
        "To jest np. dobre.",
        "Prof. Nowak mówił.",
        "Urodził się w 1990 r. w Krakowie.",
        "Kupił chleb, mleko itd. i wyszedł.",
        "Por. Wójcik jest tu, tzn. tam.",
    ],
    "ru": [
        "Г. Иванов пришёл в 5 ч. вечера.",
        "Он живёт на ул. Ленина, д. 5.",
        "Это, т. е. то, верно.",
        "Проф. Петров говорил.",
        "В 1990 г. он уехал.",
        "Купил хлеб, молоко и т. д. и ушёл.",
        "См. стр. 5.",
    ],
}
"""Sentences with abbreviations, of languages whose rules are not those of every text."""


def texts(text: str, generation: Generation = GENERATION) -> list[str]:
    return [piece.text for piece in split(text, generation)]


@pytest.mark.parametrize("language", SENTENCES)
def test_pieces_end_at_the_ends_of_sentences(language: str) -> None:
    between = "" if language in {"Chinese", "Japanese"} else " "
    sentences = SENTENCES[language] * 30
    pieces = texts(between.join(sentences))
    assert len(pieces) > 3
    assert between.join(pieces) == between.join(sentences)
    endings = tuple(SENTENCES[language])
    assert [piece for piece in pieces if not piece.endswith(endings)] == []
    frames = [estimated_frames(piece) for piece in pieces]
    assert max(frames) <= piece_frames(GENERATION)
    assert min(frames) > max(frames) / 2, "no short piece is left over"


def test_a_sentence_that_is_too_long_is_split_at_clauses_then_at_spaces() -> None:
    clause = "and then it went on without an end"
    pieces = split(", ".join([clause] * 40), GENERATION)
    assert all(piece.text.rstrip(",").endswith(clause) for piece in pieces)
    assert {piece.pause_s for piece in pieces[:-1]} == {0.15}
    pieces = split("word " * 300, GENERATION)
    assert {word for piece in pieces for word in piece.text.split()} == {"word"}
    assert {piece.pause_s for piece in pieces[:-1]} == {0.0}


@pytest.mark.parametrize("grapheme", ["e\u0301\u0323", "\u1100\u1161\u11a8", "天"])
def test_what_has_no_spaces_is_split_between_graphemes(grapheme: str) -> None:
    pieces = texts("a" + grapheme * 700)
    assert len(pieces) > 3
    assert "".join(pieces) == "a" + grapheme * 700
    assert all(piece.removeprefix("a").replace(grapheme, "") == "" for piece in pieces)


def test_a_blank_line_is_a_longer_pause() -> None:
    text = "One short heading\n\n" + "A sentence of this paragraph\nwith a line end. " * 10 + "\n \n\nThe end."
    generation = Generation(pause_s=0.25, paragraph_pause_s=1.5)
    pieces = split(text, generation)
    assert (pieces[0].text, pieces[0].pause_s) == ("One short heading", 1.5)
    assert {piece.pause_s for piece in pieces[1:-2]} == {0.25}
    assert (pieces[-2].pause_s, pieces[-1].text) == (1.5, "The end.")


def test_what_cannot_be_spoken_is_left_out() -> None:
    assert texts("Say it.\n\n* * *\n\n" + "And this. " * 40)[:2] == ["Say it.", ("And this. " * 20).strip()]
    assert texts("." * 1000) == []


@given(st.text(alphabet="aB .!?。\n\t,«»“”\"'()[]1天あع؟\u200b\U0001f600e\u0301\u2028\xa0\u3000\r", max_size=3000))
def test_no_character_that_is_spoken_is_lost(text: str) -> None:
    spoken = "".join(filter(str.isalnum, text))
    pieces = texts(text, Generation(piece_s=5.0))
    assert "".join(filter(str.isalnum, "".join(pieces))) == spoken
    assert all(map(is_speakable, pieces))


class PanicException(BaseException):
    """As PyO3's."""


def test_where_the_library_panics_a_text_is_split_at_clauses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sentencex

    def panic(_language: str, _text: str) -> list[str]:
        raise PanicException("end byte index 5 is not a char boundary")

    monkeypatch.setattr(sentencex, "segment", panic)
    pieces = split("One sentence, and then. " * 40, GENERATION)
    assert {piece.text[-13:] for piece in pieces[:-1]} == {"One sentence,"}
    error = "end byte index 5 is not a char boundary"
    assert len(find_lines(capsys.readouterr().err.splitlines(), Event.TEXT_NOT_SEGMENTED, error=error)) == 1


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        *[pytest.param(unit, 1_000_000, marks=pytest.mark.slow) for unit in ("a", ".", "a.")],
        *[(unit, 100_000) for unit in ("«a. ", " ", "天", "A sentence. ")],
    ],
)
def test_the_work_grows_with_the_text(unit: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """sentencex takes quadratic time on some texts, so it gets a bounded part of the text at once, and no part of it
    more than twice in a language."""
    import sentencex

    given_sizes: list[int] = []
    segment = sentencex.segment

    def counted(language: str, text: str) -> list[str]:
        given_sizes.append(len(text))
        return list(segment(language, text))

    monkeypatch.setattr(sentencex, "segment", counted)
    split(unit * (length // len(unit)), GENERATION)
    assert max(given_sizes) <= WINDOW
    assert sum(given_sizes) <= 2 * 4 * (length + WINDOW)


def test_a_text_is_split_at_the_pauses_that_it_asks_for() -> None:
    pieces = split("[pause:0.5] One,[pause:2]two. [PAUSE: 1] ... [pause:0.25]\n\nThree.[pause:0.125]", GENERATION)
    assert pieces == [Piece("One,", 2.0, lead_s=0.5), Piece("two.", 1.25), Piece("Three.", 0.125)]


def test_between_pauses_long_texts_are_split_as_others_are() -> None:
    long = "And this is a sentence. " * 40
    plain = split(long, GENERATION)
    pieces = split(f"{long}[pause:2]{long}", GENERATION)
    assert len(plain) > 2
    assert pieces == [*plain[:-1], replace(plain[-1], pause_s=2.0), *plain]


def test_segments_of_a_fixed_length_are_split_at_pauses_alone() -> None:
    generation = Generation(min_new_tokens=100, max_new_tokens=100)
    long = ("And this is a sentence. " * 40).strip()
    assert not is_split(long, generation)
    assert is_split(f"{long}[pause:2]{long}", generation)
    assert split(f"{long}[pause:2]{long}", generation) == [Piece(long, 2.0), Piece(long, 0.0)]


def test_pauses_alone_are_nothing_to_speak() -> None:
    assert split("[pause:1] [pause:2]!", GENERATION) == []
    assert not is_speakable("[pause:1] [pause:2]!")


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("it", "Ieri sera parlava con calma con il dott. Bianchi della sua vecchia casa."),
        ("nl-BE", "Gisteren sprak hij nog heel even met dhr. Jansen over zijn oude grote huis."),
        ("ru", "Он уже очень много лет живёт на ул. Ленина вместе со своей старшей сестрой."),
        ("pl", "On już od bardzo wielu lat mieszka przy ul. Długiej razem z naszą babcią."),
    ],
)
def test_where_the_language_is_known_its_abbreviations_are_known(language: str, sentence: str) -> None:
    """After a word alone, as many characters fit into a piece as a sentence has, but no sentence."""
    text, generation = " ".join(["Aha.", *[sentence] * 6]), Generation(piece_s=5.0)
    assert [piece.text for piece in split(text, generation, language)] == ["Aha.", *[sentence] * 6]
    assert split(text, generation)[0].text.endswith((" dott.", " dhr.", " ул.", " ul."))


@pytest.mark.parametrize("language", ["en", "de-AT", "fr", "ko", "zh-Hant", "xx"])
def test_other_languages_change_nothing(language: str) -> None:
    for sentences in SENTENCES.values():
        text = " ".join(sentences * 30)
        assert split(text, GENERATION, language) == split(text, GENERATION)


def test_rules_of_the_language_beside_those_of_every_text_find_fewer_wrong_ends_than_either() -> None:
    """The figures are in `ops/ARCHITECTURE.md`: ends that are missed, and those that are found where there are none."""
    rules: dict[str, Callable[[str], tuple[str, ...]]] = {
        "its own": lambda language: (language,),
        "every text's": lambda _: LANGUAGES,
        "both": lambda language: (*LANGUAGES, language),
    }
    found = {name: [0, 0] for name in rules}
    for language, sentences in ABBREVIATED.items():
        ends = {*accumulate(len(sentence) + 1 for sentence in sentences[:-1])}
        for name, of in rules.items():
            agreed = _agreed_ends(" ".join(sentences), of(language))
            found[name][0] += len(ends - agreed)
            found[name][1] += len(agreed - ends)
    assert found == {"its own": [1, 13], "every text's": [0, 15], "both": [1, 2]}
