"""Lists of recordings that other programs use: each text is spoken with the recording and transcript of its own line.

A speaker of a batch has one reference, so each recording is a speaker: its id is ``<speaker>/<the recording's name>``,
and so is its output. The first part is the line's speaker or, where the form has none, the recording's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from cloner.batch import ReferenceKind
from cloner.errors import Problem
from cloner.input.parsers import Unreadable, parse_json
from cloner.input.rows import Document, NamedReference, Row, Rows, TextFile
from cloner.input.schema import NemoLine, Utterance, checked
from cloner.validation import shown

Utterances = Iterator[tuple[str, Utterance] | Problem]
"""Lines with their places, and the problems of bad ones."""


def read_gpt_sovits(file: TextFile) -> Document:
    """The list of GPT-SoVITS: ``recording|speaker|language|text``."""

    def values(cells: list[str]) -> dict[str, str]:
        recording = cells[0].replace("\\", "/")  # as the list is written on Windows
        language = cells[2].lower()
        found = {"recording": recording, "speaker": cells[1], "text": cells[3]}
        return {**found, "language": "ja" if language == "jp" else language} if language else found

    return _document(_piped(file, "recording|speaker|language|text", (4,), values), file)


def read_ljspeech(file: TextFile) -> Document:
    """The ``metadata.csv`` of LJSpeech: ``name|text|normalised text`` of ``wavs/name.wav``; the last is spoken.

    Raises `Unreadable` if there is no such folder.
    """
    speaker = file.base.resolve().name
    if not (file.base / "wavs").is_dir():
        what = "it is a list as LJSpeech has it, name|text, and no folder 'wavs' of recordings is beside it"
        raise Unreadable("the file", what, "put them there, or write a table with the columns speaker_id,text")

    def values(cells: list[str]) -> dict[str, str]:
        recording = f"wavs/{cells[0].removesuffix('.wav')}.wav" if cells[0] else ""
        return {"recording": recording, "speaker": speaker, "text": cells[-1]}

    return _document(_piped(file, "name|text|normalised text, or name|text", (2, 3), values), file)


def read_seed_tts_eval(file: TextFile) -> Document:
    """The ``meta.lst`` of seed-tts-eval: ``name|transcript|recording|text``, and perhaps the text's own recording."""

    def values(cells: list[str]) -> dict[str, str]:
        return {"name": cells[0], "transcript": cells[1], "recording": cells[2], "text": cells[3]}

    return _document(_piped(file, "name|transcript|recording|text", (4, 5), values), file)


def read_nemo(file: TextFile) -> Document:
    """A manifest of NeMo: JSON Lines with ``audio_filepath``, ``text`` and, perhaps, ``speaker``."""
    return _document(_nemo(file), file)


def _nemo(file: TextFile) -> Utterances:
    for number, content in file.lines():
        place = f"line {number}"
        try:
            values = parse_json(content, number)
        except Unreadable as error:
            yield error.problem
            continue
        if isinstance(values, dict):  # a manifest may have many other keys
            values = {key: values[key] for key in NemoLine.model_fields if key in values}
        line = checked(NemoLine, values, place)
        if not isinstance(line, NemoLine):
            yield from line
        elif line.offset:
            what = f"offset is {line.offset}, but a reference is a whole recording"
            yield Problem(place, what, "cut the recording into files, and leave offset out")
        else:
            yield (
                place,
                Utterance.model_construct(
                    recording=line.audio_filepath, text=line.text, speaker=line.speaker, language=line.lang
                ),
            )


def _piped(
    file: TextFile, form: str, counts: tuple[int, ...], values: Callable[[list[str]], Mapping[str, str]]
) -> Utterances:
    """The utterances of lines with ``|`` between their cells; a line may have as many cells as `counts` has."""
    for number, line in file.lines():
        place = f"line {number}"
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) not in counts:
            yield Problem(place, f"it has {len(cells)} parts with | between them", f"give {form}")
            continue
        found = checked(Utterance, values(cells), place)
        if isinstance(found, Utterance):
            yield place, found
        else:
            yield from found


def _document(utterances: Utterances, file: TextFile) -> Document:
    return Document(_rows(utterances, file))


def _rows(utterances: Utterances, file: TextFile) -> Rows:
    base = file.base.resolve()
    first: dict[str, tuple[str, str]] = {}
    for number, found in enumerate(utterances):
        if isinstance(found, Problem):
            yield found
            continue
        place, line = found
        speaker = (base / line.recording).parent.name if line.speaker is None else line.speaker
        voice = f"{speaker}/{PurePosixPath(line.recording).stem}"
        recording, there = first.setdefault(voice, (line.recording, place))
        if recording != line.recording:
            what = f"recording {shown(line.recording)} has the name and the speaker of {shown(recording)} at {there}"
            yield Problem(place, what, "give one of them another name or another speaker")
        elif there != place and line.name is None:
            yield Problem(place, f"recording {shown(recording)} is also that of {there}", "give it one line")
        else:
            transcript = line.text if line.transcript is None else line.transcript
            yield Row(
                place=place,
                reference_place=place,
                number=number,
                speaker_id=voice,
                text=line.text,
                output_file=file.options.name_of(str(line.name or voice)),
                reference=NamedReference(ReferenceKind.AUDIO, line.recording, transcript),
                language=line.language,
            )
