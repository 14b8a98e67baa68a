"""Tables as spreadsheets and editors write them: separators, names of columns, encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.batch import Batch
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from cloner.input.rows import ReadOptions
from tests.support.batch_files import problems, problems_of_tasks, save_recording, task, write

GREETINGS = [("anna", "Schöne Grüße aus München."), ("ben", "Das Mädchen läuft.")]


@pytest.fixture
def voices(folder: Path) -> Path:
    for name in ("anna", "ben"):
        save_recording(folder / "voices" / name / "a.wav", "Said.")
    return folder / "voices"


def read(path: Path, data: bytes, voices: Path, encoding: str | None = None) -> Batch:
    path.write_bytes(data)
    return read_batch(path, out_root=None, references=voices, options=ReadOptions(encoding=encoding))


def texts(batch: Batch) -> list[tuple[str, str]]:
    return [(speaker.id, segment.text) for speaker in batch.speakers for segment in speaker.segments]


def table(separator: str = ";", header: tuple[str, ...] = ("speaker_id", "text"), end: str = "\r\n") -> str:
    return "".join(separator.join(cells) + end for cells in (header, *GREETINGS))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("excel-german.csv", table().encode("cp1252")),
        ("excel-utf-8.csv", table().encode("utf-8-sig")),
        ("excel-unicode.tsv", table("\t").encode("utf-16")),
        ("excel-with-separator.csv", ("sep=;\r\n" + table()).encode("cp1252")),
        ("excel-macintosh.csv", table(end="\r").encode("mac_roman")),
        ("libreoffice.csv", table(",", end="\n").encode()),
        ("tabs.csv", table("\t", end="\n").encode()),
        ("big-endian.csv", b"\xfe\xff" + table().encode("utf-16-be")),
        ("wide.csv", table().encode("utf-32")),
        ("header-in-capitals.csv", table(header=("Speaker ID", "TEXT")).encode()),
        ("voices.csv", table(header=(" Voice ", "Target-Text")).encode()),
        ("speakers.csv", table(header=("Speaker", "target_text")).encode()),
        ("quoted-header.csv", table(header=('"speaker_id"', '"text"')).encode()),
        ("empty-columns.csv", table().replace("\r\n", ";;\r\n").encode()),
        ("empty-rows.csv", ("\r\n" + table().replace("\r\n", "\r\n;\r\n\r\n")).encode()),
        ("spaces.csv", table(", ").replace("anna", '"anna "').encode()),
    ],
)
def test_a_table_as_a_program_saves_it(folder: Path, voices: Path, name: str, data: bytes) -> None:
    assert texts(read(folder / name, data, voices)) == GREETINGS


def test_cells_may_have_the_separator_quotes_and_line_breaks(folder: Path, voices: Path) -> None:
    content = 'speaker;text\r\nanna;"One; ""two""\r\nand three, four"\r\n'
    batch = read(folder / "b.csv", content.encode(), voices)
    assert texts(batch) == [("anna", 'One; "two"\nand three, four')]


def test_other_columns_are_left_out_with_a_warning(
    folder: Path, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = "text;Colour;speaker;sed;;id\nHello.;red;anna;4;x;intro\n"
    batch = read(folder / "b.csv", content.encode(), voices)
    assert texts(batch) == [("anna", "Hello.")]
    assert batch.speakers[0].segments[0].id == "intro"
    warnings = capsys.readouterr().err.splitlines()
    path = folder / "b.csv"
    assert warnings[0].startswith(f"{path}: line 1: the column 'Colour' is not known, and is left out; the columns are")
    assert warnings[1] == f"{path}: line 1: the column 'sed' is not known, and is left out; did you mean \"seed\"?"
    assert warnings[2].startswith(f"{path}: line 1: the column '' is not known, and is left out; the columns are")
    assert len(warnings) == 3


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Voilà une idée géniale, déjà vu à l’école. « Très » cher : 5 €."),
        ("cp1252", "Grüße"),
        ("cp1252", "Åsa får blåbær."),
        ("mac_roman", "Schöne Grüße, garçon"),
        ("cp1252", "A informação não está disponível, coração."),
        ("cp1250", "Zażółć gęślą jaźń. Dzień dobry, książka."),
        ("cp1251", "Доброе утро, как вы себя чувствуете сегодня?"),
        ("cp1253", "Καλημέρα, τι κάνετε σήμερα."),
        ("cp932", "おはようございます。今日はお元気ですか？"),
        ("gb18030", "早上好，你今天怎么样？我们去公园散步吧。"),
        ("big5", "早安，你今天好嗎？我們去公園散步吧。"),
        ("cp949", "안녕하세요. 오늘 기분이 어떠세요?"),
        ("cp1256", "صباح الخير، كيف حالك اليوم؟"),
    ],
)
def test_an_encoding_is_guessed_and_shown(
    folder: Path, voices: Path, encoding: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = read(folder / "b.csv", f"speaker;text\nanna;{text}\n".encode(encoding), voices)
    assert texts(batch) == [("anna", text)]
    (warning,) = capsys.readouterr().err.splitlines()
    word = next(word.strip(",") for word in text.split() if not word.isascii())
    assert f"it is not UTF-8, and is read as {encoding}: {word[:5]}" in warning
    assert warning.endswith("; if words are wrong, save it as UTF-8, or name its encoding with --encoding")


def test_a_guess_is_made_from_the_lines_of_a_long_file_that_are_not_ascii(folder: Path, voices: Path) -> None:
    plain = "anna;This line has only letters of English.\n" * 3_000
    content = f"speaker;text\n{plain}anna;Доброе утро, как вы себя чувствуете сегодня?\n"
    batch = read(folder / "b.csv", content.encode("cp1251"), voices)
    assert batch.speakers[0].segments[-1].text == "Доброе утро, как вы себя чувствуете сегодня?"


def test_an_encoding_that_is_named_is_not_guessed(
    folder: Path, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "speaker;text\nanna;Günaydın, bugün nasılsınız?\n".encode("cp1254")
    assert texts(read(folder / "b.csv", data, voices, "cp1254")) == [("anna", "Günaydın, bugün nasılsınız?")]
    assert capsys.readouterr().err == ""


def test_many_unknown_columns_are_counted(folder: Path, voices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = ";".join(["speaker", "text", *(f"x{number}" for number in range(30))])
    read(folder / "b.csv", f"{header}\n{'anna;Hi.' + ';1' * 30}\n".encode(), voices)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 6
    assert warnings[-1].startswith(f"{folder / 'b.csv'}: line 1: 25 more columns are left out; the columns are")


def test_a_warning_obeys_no_terminal(folder: Path, voices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "b\x1b[2J.csv"
    read(path, "speaker;text;\u202e\x1b[2J\nanna;Hi.;x\n".encode(), voices)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.isprintable()


def test_a_missing_folder_of_references_is_one_problem(folder: Path) -> None:
    path = write(folder / "b.csv", "speaker,text\nanna,One.\nben,Two.\n")
    assert problems(path, references=folder / "no") == [
        f"references: there is no folder '{folder}/no'; name the folder of the speakers' references"
    ]
    right = "name one for it, or give a folder of references with references"
    assert problems(path) == [f"line 2 (and 1 more speaker): speaker 'anna' has no reference; {right}"]


@pytest.mark.parametrize("folder_of_references", [None, "no"])
def test_the_command_line_has_options_named_as_it_spells_them(folder: Path, folder_of_references: str | None) -> None:
    path = write(folder / "b.csv", "speaker,text\nanna,One.\n")
    references = folder_of_references and folder / folder_of_references
    with pytest.raises(BadBatch) as caught:
        read_batch(path, out_root=None, references=references or None, options=ReadOptions(from_command_line=True))
    (found,) = map(str, caught.value.problems)
    assert found.startswith("--references: there is no folder") if references else found.endswith("with --references")


def test_problems_name_the_columns_as_the_table_does(folder: Path) -> None:
    path = write(folder / "b.csv", "Voice;Text;Segment index\nanna;;1\n;Hi.;-3\n")
    assert problems(path) == [
        "line 2: Text is missing; give the text to speak",
        "line 3: Voice is missing; give a whole number or a name",
        "line 3: Segment index is '-3'; give a whole number, 0 or more",
    ]


def test_a_number_that_is_too_large_has_the_largest_as_its_answer(folder: Path) -> None:
    path = write(folder / "b.csv", f"speaker,text,seed\nanna,Hi.,{2**70}\nanna,Ho.,{2**63 - 1}\n")
    right = "give 9223372036854775807 or less"
    assert problems(path)[0] == f"line 2: seed is {2**70}; {right}"
    (found,) = problems_of_tasks(folder, task(2**63))
    assert found == f"tasks[0]: segment_index is {2**63}; {right}"
