"""Reading a batch file into rows, in the form that its ending, its first line or the user names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cloner.errors import Problem
from cloner.input.forms.datasets import read_gpt_sovits, read_ljspeech, read_nemo, read_seed_tts_eval
from cloner.input.forms.json_lines import read_json_lines
from cloner.input.forms.lines import read_sentences, read_subtitles
from cloner.input.forms.tables import names_columns, read_table
from cloner.input.forms.trees import read_json, read_yaml
from cloner.input.parsers import Unreadable
from cloner.input.rows import Document, Form, ReadOptions, TextFile
from cloner.input.text_file import STANDARD_INPUT, decode, read_bytes
from cloner.validation import shown

_READERS: dict[Form, Callable[[TextFile], Document]] = {
    Form.JSON: read_json,
    Form.JSONL: read_json_lines,
    Form.YAML: read_yaml,
    Form.CSV: read_table,
    Form.TSV: read_table,
    Form.TXT: read_sentences,
    Form.SRT: read_subtitles,
    Form.GPT_SOVITS: read_gpt_sovits,
    Form.LJSPEECH: read_ljspeech,
    Form.SEED_TTS_EVAL: read_seed_tts_eval,
    Form.NEMO: read_nemo,
}

_ENDINGS = {
    ".json": Form.JSON,
    ".jsonl": Form.JSONL,
    ".ndjson": Form.JSONL,
    ".csv": Form.CSV,
    ".tsv": Form.TSV,
    ".yaml": Form.YAML,
    ".yml": Form.YAML,
    ".txt": Form.TXT,
    ".srt": Form.SRT,
    ".list": Form.GPT_SOVITS,
    ".lst": Form.SEED_TTS_EVAL,
}

_SHEET = "save the sheet as CSV, with the columns speaker_id and text"
_PAGES = "save it as plain text, .txt, with a sentence a line"
_SUBTITLES = "convert it with `ffmpeg -i {name} {stem}.srt`"
_RECORDING = "give the texts to speak in a .txt, and name the recording with --reference {name}"
_PACKED = "unpack it, and give the batch file that is in it"

_CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf", ".pages", ".pdf", ".epub", ".md", ".html", ".htm"), _PAGES),
    **dict.fromkeys((".vtt", ".ass", ".ssa", ".sbv"), _SUBTITLES),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg", ".m4a", ".mp4", ".webm", ".aac", ".npy"), _RECORDING),
    **dict.fromkeys((".zip", ".gz", ".7z", ".tar"), _PACKED),
    ".parquet": "write it as .jsonl or .csv, with the columns speaker_id and text",
}
"""How to make a batch file of what is none, by its ending."""


def read_document(path: Path, base: Path, options: ReadOptions, warn: Callable[[Problem], None]) -> Document:
    """The batch file at `path`, ``-`` for standard input. Its rows are parsed as they are iterated over.

    Relative paths in it start from `base`.
    """
    try:
        if path.is_dir():
            raise Unreadable("the file", "it is a folder", "give the path of a batch file in it")
        form = options.form or _form_of(path)
        data = read_bytes(path)
        guess = form not in {Form.JSON, Form.JSONL, Form.NEMO, Form.YAML}  # by definition, they are in Unicode
        text = _with_line_feeds(decode(data, options.encoding, guess=guess, warn=warn))
        if not text.strip():
            raise Unreadable("the file", "it is empty", "give at least one segment")
        file = TextFile(text, path, base, warn, options)
        form = options.form or _form_by_first_line(form, file)
        if form not in {Form.TXT, Form.SRT} and (options.reference or options.reference_text is not None):
            option = "--reference" if options.reference else "--reference-text"
            right = "name the references in the batch, or their folder with --references"
            raise Unreadable(option, f"a {form} names its speakers", right)
        return _READERS[form](file)
    except OSError as error:
        what = f"it cannot be read ({error.strerror})"
        return Document([Problem("the file", what, "give the path of a batch file")])
    except Unreadable as error:
        return Document([error.problem])


def _with_line_feeds(text: str) -> str:
    """`text` with a line feed at the end of each line, as Windows and old programs of macOS do not write it."""
    if "\r" not in text:
        return text
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def _form_of(path: Path) -> Form:
    """The form that the file's ending names. Raises `Unreadable`."""
    if path == STANDARD_INPUT:
        raise Unreadable("--as", "the form of standard input is not known", f"name one: {', '.join(Form)}")
    ending = path.suffix.lower()
    if form := _ENDINGS.get(ending):
        return form
    if conversion := _CONVERSIONS.get(ending):
        right = conversion.format(name=path.name, stem=path.stem)
        raise Unreadable("the file", f"a {ending} is no batch file", right)
    if not path.exists():
        raise Unreadable("the file", "there is no such file", "give the path of a batch file")
    right = f"name it {', '.join(_ENDINGS)}, or name its form with --as"
    raise Unreadable("the file", f"the ending {shown(ending)} is not known", right)


def _form_by_first_line(form: Form, file: TextFile) -> Form:
    """The form of a file whose ending several forms have."""
    line = next((line for _, line in file.lines()), "")
    match form:
        case Form.CSV if "|" in line and not names_columns(line):
            return Form.LJSPEECH
        case Form.JSON | Form.JSONL if '"audio_filepath"' in line:
            return Form.NEMO
        case _:
            return form
