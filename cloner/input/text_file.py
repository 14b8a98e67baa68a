"""A batch file's bytes, and the text that they spell: UTF-8, UTF-16 with a byte order mark, or a guess."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from pathlib import Path

from charset_normalizer import from_bytes

from cloner.errors import Problem
from cloner.input.parsers import Unreadable
from cloner.validation import shown

MAX_BYTES = 256 * 1024**2
"""The largest batch file, in bytes: more than a million segments."""

STANDARD_INPUT = Path("-")

_RIGHT = "give the path of a batch file"

_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"}
_MARKS |= {codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks and their encodings; that of UTF-32 begins with that of UTF-16."""

_USUAL = "cp1252"
"""The code page of Windows in Western Europe and America."""

_LATIN = [_USUAL, "cp1250", "cp1254", "cp1257"]
_OTHERS = ["cp1251", "cp1253", "cp1255", "cp1256", "cp874", "koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949"]
"""Encodings that are guessed: those in which spreadsheets and editors save. Of all that Python has, a short text would
fit too many."""

_SAMPLE_BYTES = 2**16
"""Bytes that a guess is made from."""

_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_NOT_ASCII = re.compile(r"""[^\s,;|"]*[^\s\x00-\x7f][^\s,;|"]*""")
"""Words with a letter that is not ASCII."""

_WORDS_SHOWN = 5


def read_bytes(path: Path) -> bytes:
    """The bytes of a batch file, or of standard input for ``-``.

    A device or pipe is not opened: reading it might never end. Raises `OSError`, `Unreadable`.
    """
    if path == STANDARD_INPUT:
        if sys.stdin is None:  # it is closed
            raise Unreadable("the file", "standard input is closed", _RIGHT)
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Unreadable("the file", f"it has more than {MAX_BYTES} bytes", "split it into several")
        return data
    if path.exists() and not path.is_file():
        raise Unreadable("the file", "it is not a file", _RIGHT)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Unreadable("the file", f"it has {size} bytes, and {MAX_BYTES} is the most", "split it into several")
    return path.read_bytes()


def decode(data: bytes, encoding: str | None, *, guess: bool, warn: Callable[[Problem], None]) -> str:
    """The text that `data` spells, without a byte order mark.

    In `encoding` if one is given; else in that of its byte order mark, or UTF-8; else, with `guess`, in the encoding in
    which it reads best, which is a warning. Raises `Unreadable`.
    """
    if encoding is not None:
        return _decode_as(data, encoding)
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(marked)
    except UnicodeDecodeError as error:
        if marked == "utf-8-sig" and guess and (guessed := _guess(data)):
            text, encoding = guessed
            _warn_of_guess(text, encoding, warn)
            return text
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not {marked.removesuffix('-sig').upper()}"
        raise Unreadable(f"line {line}", what, "save the file as UTF-8, or name its encoding with --encoding") from None
    if text.count("\0") * 4 > len(text):
        what = "every second byte is zero, as in UTF-16 without a byte order mark"
        raise Unreadable("the file", what, "save it as UTF-8, or give --encoding utf-16-le")
    return text


def _decode_as(data: bytes, encoding: str) -> str:
    try:
        "".encode(encoding)  # a LookupError if it encodes bytes, as base64 does
        return data.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        right = "name one that Python has, such as utf-8, cp1252 or shift_jis"
        raise Unreadable("--encoding", f"{shown(encoding)} is no encoding of texts", right) from None
    except UnicodeError:
        raise Unreadable("the file", f"this is not {encoding}", "name the encoding in which it was saved") from None


def _guess(data: bytes) -> tuple[str, str] | None:
    """The text of `data` in the encoding in which it reads best, and that encoding; None if it is no text in any."""
    sample = data if len(data) <= _SAMPLE_BYTES else _sample(data)
    encoding = _best(sample)
    if encoding is None:
        return None
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if _UNUSABLE.search(text) else (text, encoding)


def _sample(data: bytes) -> bytes:
    """About `_SAMPLE_BYTES` of `data` from where it is not ASCII: such places to the ends of their lines."""
    sample = bytearray()
    end = 0
    for found in re.finditer(rb"[\x80-\xff]", data):
        if found.start() < end:
            continue
        start = max(end, found.start() - 100)
        end = data.find(b"\n", found.start(), found.start() + 4_000) + 1 or found.start() + 4_000
        sample += data[start:end]
        if len(sample) > _SAMPLE_BYTES:
            break
    return bytes(sample)


def _best(sample: bytes) -> str | None:
    """The encoding in which a sample reads best."""
    words = b" ".join(re.findall(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*", sample))
    letters, others = (len(re.findall(chosen, words)) for chosen in (rb"[A-Za-z]", rb"[\x80-\xff]"))
    if letters < others:  # hardly a Latin alphabet
        best = from_bytes(sample, cp_isolation=_OTHERS).best()
        return best.encoding if best else None
    mac, windows = (len(re.findall(chosen, words)) for chosen in (rb"[\x87-\x8f\x9a\x9b\x9f]", rb"[\xc0-\xff]"))
    if mac > windows:  # the bytes of é, è, ä, ö, ü and the like
        return "mac_roman"
    matches = from_bytes(sample, cp_isolation=_LATIN)
    best = matches.best()
    # By its letters alone, "déjà" may be Latvian. A text of another language is less coherent in the usual encoding.
    usual = next((match for match in matches if _USUAL in match.could_be_from_charset), None)
    if usual and best and usual.coherence >= best.coherence:
        return _USUAL
    return best.encoding if best else None


def _warn_of_guess(text: str, encoding: str, warn: Callable[[Problem], None]) -> None:
    words = (found[0] for found in _NOT_ASCII.finditer(text))
    some = ", ".join(dict.fromkeys(word[:40] for word, _ in zip(words, range(_WORDS_SHOWN), strict=False)))
    what = f"it is not UTF-8, and is read as {encoding}: {some}"
    warn(Problem("the file", what, "if words are wrong, save it as UTF-8, or name its encoding with --encoding"))
