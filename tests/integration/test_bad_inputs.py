"""Every kind of bad input, as tables: the input, and the error message.

Each goes through the command line's own entry, in this process: an exit status, a sentence on standard error, never a
traceback; and nothing is queued, and nothing written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from cloner import Client
from cloner.__main__ import main
from cloner.batch import Reference, ReferenceKind
from cloner.commandline import report_errors
from cloner.engine import make_engine
from cloner.input.references import codes_file_problem, load_reference, recording_file_problem
from cloner.protocol.references import audio_from_bytes
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.keys import RedisKeys
from cloner.state.registry import Registry, expected_worker
from cloner.worker.__main__ import main as worker_main
from tests.support import bad_files as bad
from tests.support.batch_files import as_csv, save_recording, task, write_references
from tests.support.processes import environment, run_cloner

Call = Callable[..., tuple[int, str]]

MB = 1024**2
RIGHT_JSON = json.dumps({"tasks": [task()]})
RIGHT_YAML = "speakers:\n- id: anna\n  reference: {audio: anna.wav, text: Said.}\n  texts: [One.]\n"
RIGHT_CSV = as_csv([task()])


def yaml_with(text: str) -> str:
    return RIGHT_YAML.replace("[One.]", text)


BATCH_FILES: dict[str, tuple[str, str | bytes, str]] = {
    # name of the file, what is in it, the sentence
    "empty": ("b.json", b"", "it is empty; give at least one segment"),
    "nothing but a byte order mark": ("b.json", b"\xef\xbb\xbf", "it is empty"),
    "white space": ("b.csv", " \r\n\t\n", "it is empty"),
    "utf-16": ("b.json", RIGHT_JSON.encode("utf-16"), "byte 0xff is not UTF-8; save the file as UTF-8"),
    "utf-16 without its mark": ("b.json", RIGHT_JSON.encode("utf-16-le"), "line 1, column 2: this is not JSON"),
    "utf-32": ("b.yaml", RIGHT_YAML.encode("utf-32"), "byte 0xff is not UTF-8"),
    "latin-1": ("b.csv", "speaker_id,text\na,b\nc,déjà vu\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"),
    "bytes of nothing": ("b.jsonl", b"\x80\x81\xfe\xff", "line 1: byte 0x80 is not UTF-8"),
    "a picture": ("b.json", b"\x89PNG\r\n\x1a\n" + bytes(64), "byte 0x89 is not UTF-8"),
    "cut in an object": ("b.json", RIGHT_JSON[:40], "this is not JSON"),
    "cut in a text": ("b.json", '{"tasks": [{"target_text": "Hel', "Unterminated string"),
    "cut lines": ("b.jsonl", json.dumps(task(0)) + '\n{"speaker_id": 1,', "line 2, column 18: this is not JSON"),
    "a trailing comma": ("b.json", '{"tasks": [],}', "this is not JSON"),
    "single quotes": ("b.json", "{'tasks': []}", "this is not JSON"),
    "two documents": ("b.json", RIGHT_JSON + RIGHT_JSON, "this is not JSON (Extra data)"),
    "another form than its ending": ("b.json", RIGHT_CSV, "this is not JSON"),
    "an unknown ending": ("b.txt", RIGHT_JSON, "the ending '.txt' is not known; name it .json"),
    "a list": ("b.json", "[]", 'it holds a list; give an object with "tasks" or "speakers"'),
    "a number": ("b.json", "42", "it holds 42; give an object"),
    "not a number": ("b.json", "NaN", "it holds nan; give an object"),
    "null": ("b.yaml", "~", "it holds null"),
    "an object of nothing": ("b.json", "{}", 'it has neither "tasks" nor "speakers"'),
    "both forms": ("b.json", '{"tasks": [], "speakers": []}', 'it has both "tasks" and "speakers"'),
    "tasks that are none": ("b.json", '{"tasks": "all of them"}', "tasks: it is 'all of them'; give a list"),
    "no tasks": ("b.json", '{"tasks": []}', "it has no segments; give at least one"),
    "no speakers": ("b.yaml", "speakers: []", "it has no segments"),
    "rows that are none": ("b.json", '{"tasks": [1, null, []]}', "tasks[1]: it is null; give an object"),
    "an unknown key": ("b.json", '{"tasks": [], "generations": {}}', 'did you mean "generation"?'),
    "a key twice": ("b.json", '{"tasks": [], "tasks": []}', "the key 'tasks' appears more than once; keep one"),
    "a row's key twice": ("b.json", '{"tasks": [{"text": "a", "text": "b"}]}', "tasks[0]: the key 'text' appears more"),
    "a YAML key twice": ("b.yaml", RIGHT_YAML + "speakers: []\n", "the key 'speakers' appears more than once"),
    "deep JSON": ("b.json", "[" * 100_000, "the JSON is nested too deeply"),
    "deep JSON, closed": ("b.json", '{"a":' * 50_000 + "1" + "}" * 50_000, "the JSON is nested too deeply"),
    "deep JSON within a row": ("b.jsonl", '{"speaker_id": ' + "[" * 500 + "]" * 500 + "}", "speaker_id is a list"),
    "deep YAML": ("b.yaml", "[" * 100_000, "the YAML is nested too deeply"),
    "deep YAML of blocks": ("b.yaml", "- " * 5_000 + "a", "the YAML is nested too deeply"),
    "a YAML bomb": (
        "b.yaml",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]",
        "the YAML anchor or alias a is not taken",
    ),
    "a YAML alias of nothing": ("b.yaml", "speakers: *all", "the YAML anchor or alias all is not taken"),
    "a YAML loop": ("b.yaml", "&a [*a]", "the YAML anchor or alias a is not taken"),
    "a YAML program": ("b.yaml", "!!python/object/apply:os.system [id]", "the YAML tag tag:yaml.org,2002:python"),
    "a YAML merge": ("b.yaml", "speakers: {<<: {a: 1}}", "this is not YAML"),
    "two YAML documents": ("b.yaml", RIGHT_YAML + "---\n" + RIGHT_YAML, "this is not YAML"),
    "tabs in YAML": (
        "b.yaml",
        "speakers:\n\t- id: a",
        "this is not YAML (found character that cannot start",
    ),
    "YAML with an open quote": ("b.yaml", 'speakers: "', "this is not YAML"),
    "a YAML control character": ("b.yaml", yaml_with("['\x07']"), "a character that YAML does not allow"),
    "a YAML date that is none": ("b.yaml", yaml_with("[2026-99-99]"), "a YAML value has no meaning"),
    "a YAML key that is no text": ("b.yaml", "1: 2", "a key is not text"),
    "what YAML reads as true": ("b.yaml", yaml_with("[yes]"), "it is yes, which YAML reads as true"),
    "what YAML reads as minutes": ("b.yaml", yaml_with("[12:30]"), "which YAML reads as 750"),
    "a long YAML number": ("b.yaml", yaml_with("[0x" + "f" * 9_999 + "]"), "a YAML value has no meaning"),
    "a long JSON number": ("b.json", '{"tasks": ' + "1" * 9_999 + "}", "this is not usable JSON"),
    "a JSON control character": ("b.json", '{"tasks": ["\x07"]}', "Invalid control character"),
    "a CSV line of commas": ("b.csv", ",", "line 1: the column speaker_id is missing; name the columns"),
    "CSV cells that are empty": ("b.csv", ",,,\n,,,\n", "line 1: the column target_text is missing"),
    "CSV with a header only": ("b.csv", "speaker_id,text\n", "it has no segments"),
    "CSV with semicolons": ("b.csv", "speaker_id;text\na;b\n", "with commas between them"),
    "CSV with a column twice": ("b.csv", "speaker_id,text,text\na,b,c\n", "the column text appears 2 times; keep one"),
    "CSV with too many cells": ("b.csv", "speaker_id,text\na,b,c\n", "it has 3 cells, but there are 2 columns"),
    "CSV with an open quote": ("b.csv", 'speaker_id,text\na,"b\n', "this is not CSV (unexpected end of data)"),
    "CSV with a long cell": ("b.csv", f"speaker_id,text\na,{'b' * MB}\n", "a cell has more than 131072 characters"),
    "CSV with a zero byte": ("b.csv", "speaker_id,text\na,b\0c\n", "unusable character (U+0000)"),
}

ROWS: dict[str, tuple[dict[str, Any], str]] = {
    # what is changed in a second row that is otherwise right, the sentence
    "no speaker": ({"speaker_id": ...}, "tasks[1]: speaker_id is missing; give a whole number or a name"),
    "a speaker that is true": ({"speaker_id": True}, "speaker_id is true"),
    "a speaker that is a fraction": ({"speaker_id": 1.5}, "speaker_id is 1.5"),
    "a speaker that is not a number": ({"speaker_id": float("nan")}, "speaker_id is nan"),
    "a blank speaker": ({"speaker_id": " "}, "speaker_id is blank"),
    "a long speaker": ({"speaker_id": "a" * 5_000}, "speaker_id has 5000 characters, and 4096 is the most"),
    "a long number of a speaker": ({"speaker_id": int("9" * 4_200)}, "speaker_id has 4200 characters"),
    "a speaker with a line feed": ({"speaker_id": "a\nb"}, "speaker_id has an unusable character (U+000A)"),
    "a speaker spelt two ways": ({"speaker_id": "0"}, "speaker '0' is 0 at tasks[0]; write the id as a number or"),
    "a speaker with two references": ({"npy_file": "refs/1.npy"}, "speaker 0 has the reference 'refs/1.npy' here"),
    "a speaker with two transcripts": ({"reference_text": "No."}, "another transcript of its reference"),
    "no text": ({"target_text": ...}, "target_text is missing; give the text to speak"),
    "a blank text": ({"target_text": "\n\t "}, "target_text is blank"),
    "a text of a number": ({"target_text": 12}, "target_text is 12; give the text to speak, in quotes"),
    "a text of infinity": ({"target_text": float("inf")}, "target_text is inf"),
    "a text of 10 MB": ({"target_text": "a" * 10 * MB}, "target_text has 10485760 characters, and 32768 is the most"),
    "a text with a bell": ({"target_text": "Ding\x07"}, "unusable character (U+0007) at position 5"),
    "a text with a zero": ({"target_text": "a\0b"}, "unusable character (U+0000)"),
    "a text with half a letter": ({"target_text": "a\ud83d"}, "unusable character (U+D83D)"),
    "two texts": ({"text": "Another."}, "the key 'text' is not known"),
    "an index that is taken": ({"segment_index": 0}, "segment_index 0 is also that of tasks[0]; number every segment"),
    "a negative index": ({"segment_index": -1}, "segment_index is -1; give a whole number, 0 or more"),
    "a huge index": ({"segment_index": 2**63}, "segment_index is 9223372036854775808"),
    "a fraction of an index": ({"segment_index": 1.5}, "segment_index is 1.5"),
    "an index that is not a number": ({"segment_index": float("nan")}, "segment_index is nan"),
    "an output that is taken": ({"output_file": "out/0.wav"}, "'out/0.wav' is also the output of tasks[0]"),
    "an output by a detour": ({"output_file": "x/../out//0.wav"}, "is also the output of tasks[0]"),
    "an output in an output": ({"output_file": "out/0.wav/1.wav"}, "lies in a folder which is the output of tasks[0]"),
    "an output above": ({"output_file": "../1.wav"}, "'../1.wav' is not inside the output root"),
    "an output above, later": ({"output_file": "a/b/../../../1.wav"}, "is not inside the output root"),
    "an output from the top": ({"output_file": "/etc/1.wav"}, "is not inside the output root"),
    "an output among ours": ({"output_file": ".cloner/1.wav"}, "lies in .cloner, which is not for outputs"),
    "an output that is no audio": ({"output_file": "1.mp3"}, "let it end in .wav or .flac or .ogg"),
    "an output with a backslash": ({"output_file": "a\\b.wav"}, "has a backslash; write / between folders"),
    "an output with a zero": ({"output_file": "a\0.wav"}, "output_file has an unusable character (U+0000)"),
    "an output of 300 bytes": ({"output_file": "é" * 150 + ".wav"}, "has a name of more than 255 bytes; shorten it"),
    "an output of many folders": ({"output_file": "a/" * 900 + "b.wav"}, "is longer than 1024 bytes; shorten it"),
    "an output of a long speaker": (
        {"speaker_id": "a" * 300, "output_file": ...},
        "has a name of more than 255 bytes; shorten it",
    ),
    "a reference above": ({"speaker_id": 1, "npy_file": "../x.npy"}, "x.npy', outside of the batch's folder, and"),
    "a reference from the top": ({"speaker_id": 1, "npy_file": "/etc/passwd"}, "'/etc/passwd' lies outside of the"),
    "a reference that is a device": ({"speaker_id": 1, "npy_file": "/dev/zero"}, "'/dev/zero' lies outside of the"),
    "a reference that is a folder": ({"speaker_id": 1, "npy_file": "refs"}, "it is not a file"),
    "a reference that is not there": ({"speaker_id": 1, "npy_file": "no.npy"}, "there is no such file"),
    "a reference of 300 bytes": ({"speaker_id": 1, "npy_file": "n" * 300}, "cannot be read (File name too long)"),
    "a reference with a zero": ({"speaker_id": 1, "npy_file": "a\0b"}, "npy_file has an unusable character (U+0000)"),
    "a reference without its text": ({"reference_text": ...}, "has only one of npy_file and reference_text"),
    "no reference": ({"speaker_id": 1, "npy_file": ..., "reference_text": ...}, "name one for it, or give a folder"),
}

GENERATION: dict[str, tuple[object, str]] = {
    "a list": ([], "generation: it is a list; give an object"),
    "not a number": ({"temperature": float("nan")}, "temperature is nan"),
    "infinity": ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
    "a cold temperature": ({"temperature": 0}, "temperature is 0; it should be greater than 0"),
    "more than all": ({"top_p": 1.01}, "top_p is 1.01; it should be less than or equal to 1"),
    "no frames": ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    "too many frames": ({"max_new_tokens": 10**30}, "max_new_tokens is 1000000000000000000000000000000"),
    "a text": ({"top_p": "0.7"}, "top_p is '0.7'"),
    "a number of true": ({"seed": True}, "seed is true"),
    "a negative seed": ({"seed": -1}, "seed is -1"),
    "a minimum above the maximum": ({"min_new_tokens": 9, "max_new_tokens": 8}, "it should be at most max_new_tokens"),
    "an unknown word": ({"temperatur": 1}, 'did you mean "temperature"?'),
}

CODES: dict[str, tuple[bad.Make, str]] = {
    "an array of objects": (bad.pickled_array, "of type object, and whole numbers are needed"),
    "a pickle": (bad.pickled, "not a .npy file of codes"),
    "fractions": (bad.codes(bad.good_codes().astype(np.float32)), "of type float32"),
    "texts": (bad.codes([["a"] * 20] * 10), "of type <U1"),
    "truths": (bad.codes(np.ones((10, 20), bool)), "of type bool"),
    "too few codebooks": (bad.codes(bad.good_codes()[:9]), "shape [9, 20], and [10, frames] with 1 to 2600"),
    "frames by codebooks": (bad.codes(bad.good_codes().T), "shape [20, 10]"),
    "one number": (bad.codes(7), "shape []"),
    "a batch of them": (bad.codes(bad.good_codes()[None]), "shape [1, 10, 20]"),
    "no frames": (bad.codes(bad.good_codes()[:, :0]), "shape [10, 0]"),
    "minutes of frames": (bad.codes(np.zeros((10, 2601), np.int32)), "shape [10, 2601]"),
    "negative codes": (bad.codes(bad.good_codes() - 1), "in codebook 0 go from -1 to 18; the codec has 0 to 4095"),
    "codes beyond the codebook": (bad.codes(bad.good_codes() + 1010), "in codebook 1 go from 1010 to 1029"),
    "huge codes": (bad.codes(np.full((10, 20), 2**64 - 1, np.uint64)), "go from 18446744073709551615"),
    "cut short": (bad.both(bad.codes(bad.good_codes()), bad.cut(-1)), "cut off: 799 of 800 bytes are there"),
    "cut in the header": (bad.both(bad.codes(bad.good_codes()), bad.cut(30)), "not a .npy file of codes"),
    "a header without data": (bad.npy_header((10, 2600)), "cut off: 0 of 208000 bytes"),
    "a header of 2 GB of data": (bad.npy_header((10, 27_000_000)), "1 to 2600 frames is needed"),
    "a negative header": (bad.npy_header((10, -5)), "shape [10, -5]"),
    "a header of 2 GB that is not there": (bad.long_npy_header(2**31, there=False), "not a .npy file of codes"),
    "a header of 2 GB that is there": (bad.long_npy_header(2**31, there=True), "not a .npy file of codes"),
    "several arrays": (bad.several_arrays, "not a .npy file of codes"),
    "nothing": (bad.content(b""), "not a .npy file of codes"),
    "a recording": (bad.recording(bad.tone(1)), "not a .npy file of codes"),
    "a folder": (Path.mkdir, "it is not a file"),
    "a device": (bad.link("/dev/zero"), "leads to '/dev/zero', outside of the batch's folder"),
    "a link out of the folder": (bad.link("/etc/passwd"), "leads to '/etc/passwd', outside of the batch's folder"),
    "a link to itself": (bad.link("x.npy"), "there is no such file"),
    "a link to nothing": (bad.link("nothing.npy"), "there is no such file"),
    "a pipe": (bad.fifo, "it is not a file"),
}

RECORDINGS: dict[str, tuple[bad.Make, str]] = {
    "nothing": (bad.content(b""), "cannot be read as audio"),
    "a text": (bad.content(b"This is no sound. " * 999), "cannot be read as audio"),
    "codes": (bad.codes(bad.good_codes()), "cannot be read as audio"),
    "cut in the header": (bad.both(bad.recording(bad.tone(1)), bad.cut(20)), "cannot be read as audio"),
    "no samples": (bad.recording([]), "0.00 s long, and 0.5 s is the least"),
    "one sample": (bad.recording([0.5]), "0.00 s long"),
    "too short": (bad.recording(bad.tone(0.4)), "0.40 s long"),
    "cut short": (bad.both(bad.recording(bad.tone(1)), bad.cut(9_000)), "the recording is 0.1"),
    "silent": (bad.recording(np.zeros(16_000)), "the recording is silent"),
    "not numbers": (bad.recording(np.full(16_000, np.nan)), "not numbers (NaN or infinity)"),
    "infinite": (bad.recording(np.where(np.arange(16_000) == 9, np.inf, 0.1)), "not numbers (NaN or infinity)"),
    "one sample a second": (bad.recording(bad.tone(1), 1), "1 samples a second, and 1000 to 768000 can be used"),
    "a billion samples a second": (bad.recording(bad.tone(1), 10**9), "1000000000 samples a second"),
    "silent in its first 30 s": (bad.recording(np.r_[np.zeros(30 * 1000), bad.tone(9, 1000)], 1000), "is silent"),
    "a folder": (Path.mkdir, "it is not a file"),
    "a device": (bad.link("/dev/zero"), "outside of the batch's folder"),
    "a link out of the folder": (bad.link("/etc/passwd"), "leads to '/etc/passwd', outside of the batch's folder"),
    "a pipe": (bad.fifo, "it is not a file"),
}

FOLDER: dict[str, tuple[str, bad.Make, str]] = {
    # a file of DIR/anna where a.wav and a.lab are, what becomes of it, the sentence
    "no transcript": ("a.lab", Path.unlink, "a.lab': there is no such file"),
    "a blank transcript": ("a.lab", bad.content(b" \n"), "the transcript is blank"),
    "a transcript in latin-1": ("a.lab", bad.content(b"d\xe9j\xe0"), "the transcript is not UTF-8"),
    "a transcript of 10 MB": ("a.lab", bad.content(b"a" * 10 * MB), "the transcript has 10485760 characters"),
    "a transcript that is a device": (
        "a.lab",
        bad.link("/dev/zero"),
        "leads to '/dev/zero', outside of",
    ),
    "a transcript from elsewhere": (
        "a.lab",
        bad.link("/etc/passwd"),
        "leads to '/etc/passwd', outside",
    ),
    "a transcript that is a pipe": ("a.lab", bad.fifo, "a.lab': it is not a file"),
    "a recording from elsewhere": (
        "a.wav",
        bad.link("/etc/passwd"),
        "leads to '/etc/passwd', outside",
    ),
    "a recording of nothing": ("a.wav", bad.content(b""), "cannot be read as audio"),
    "no recording": ("a.wav", Path.unlink, "the folder holds no recording"),
}

FILES: dict[str, tuple[bad.Make, str]] = {
    # what lies where the batch file should
    "not there": (bad.both(), "it cannot be read (No such file or directory); give the path of a batch file"),
    "a folder": (Path.mkdir, "it is not a file; give the path of a batch file"),
    "a device": (bad.link("/dev/zero"), "it is not a file"),
    "a pipe": (bad.fifo, "it is not a file"),
    "a link to itself": (bad.link("b.json"), "cannot be read (Too many levels of symbolic links)"),
    "300 MB of nothing": (bad.hole(300 * MB), "split it into several"),
}

CHECKPOINTS: dict[str, tuple[str, bad.Make, str]] = {
    # the file, what becomes of it, the sentence
    "no model": ("model.pth", Path.unlink, "has no readable model.pth: fetch a checkpoint"),
    "no codec": ("codec.pth", Path.unlink, "has no readable codec.pth"),
    "no configuration": ("config.json", Path.unlink, "has no readable config.json"),
    "no tokenizer": ("tokenizer.tiktoken", Path.unlink, "has no readable tokenizer.tiktoken"),
    "no special tokens": ("special_tokens.json", Path.unlink, "has no readable special_tokens.json"),
    "a model that is a pipe": ("model.pth", bad.fifo, "has no readable model.pth"),
    "a model that is a device": ("model.pth", bad.link("/dev/zero"), "has no readable model.pth"),
    "a codec that is a folder": ("codec.pth", bad.both(Path.unlink, Path.mkdir), "has no readable codec.pth"),
    "half a model": ("model.pth", bad.cut(1_000_000), "model.pth is no whole file"),
    "half a codec": ("codec.pth", bad.cut(100_000), "codec.pth is no whole file"),
    "an empty model": ("model.pth", bad.content(b""), "model.pth"),
    "a model that is a program": ("model.pth", bad.program_for_weights, "loading it could run a program: refused"),
    "a codec that is a program": ("codec.pth", bad.program_for_weights, "loading it could run a program: refused"),
    "a model of another size": ("config.json", bad.changed(dim=128), "size mismatch"),
    "a configuration that is no JSON": ("config.json", bad.content(b"{"), "config.json cannot be read as the config"),
    "a configuration in UTF-16": ("config.json", bad.content("{}".encode("utf-16")), "config.json cannot be read as"),
    "a configuration that is a list": ("config.json", bad.content(b"[]"), "config.json cannot be read as the config"),
    "layers in words": ("config.json", bad.changed(n_layer="two"), "config.json cannot be read as the configuration"),
    "no heads": ("config.json", bad.changed(n_head=0), "config.json cannot be read as the configuration"),
    "too many positions": ("config.json", bad.changed(max_seq_len=10**9), "max_seq_len of 1000000000; 1 to 65536"),
    "another kind of model": ("config.json", bad.changed(model_type="naive"), "config.json cannot be read as"),
    "too few codebooks": ("config.json", bad.changed(num_codebooks=8), "8 codebooks of 4096; the codec has 10"),
    "too few words": ("config.json", bad.changed(vocab_size=300), "vocab_size of 300: take all files from one"),
    "a tokenizer of nothing": ("tokenizer.tiktoken", bad.content(b"\xff\xfe"), "cannot be read as a tokenizer"),
    "special tokens of nothing": ("special_tokens.json", bad.content(b"{}"), "special_tokens.json"),
    "a model that is a pickle": ("model.pth", bad.pickled, "model.pth is no whole file of PyTorch weights"),
    "a codec that calls": ("codec.json", bad.changed(_target_="os.getcwd"), "'os.getcwd' is not a whole number"),
    "a codec of another kind": ("codec.json", bad.changed(encoder_rates=[2, 2]), "codec"),
}

ADDRESSES = [
    "localhost",
    "localhost:6379",
    "http://:topsecret@localhost",
    "redis:/:topsecret@localhost",
    "REDIS://:topsecret@localhost",
    "redis://:topsecret@localhost:port",
    "redis://:topsecret@localhost:99999",
    "redis://:topsecret@localhost:0",
    "redis://:top/secret@localhost",
    "redis://:top#secret@localhost",
    "redis://[topsecret",
    "redis://localhost/topsecret",
    "redis://localhost/0/1",
    "redis://localhost?password=topsecret",
    "redis://localhost?db=1",
    "redis://localhost?ssl_cert_reqs=none",
    "rediss://localhost?ssl_cert_reqs=topsecret",
    "rediss://localhost?ssl_ca_certs=",
    "rediss://localhost?topsecret=1",
    "unix://topsecret/socket",
    "unix://",
    "unix:///socket?db=topsecret",
    "sentinel://:topsecret@localhost",
    "redis://löcalhost",
    " redis://localhost",
    "\x1b[2J",
]

NONSENSE = ["\n", " ", "\x1b[2J", "no such thing!", "-7.5 apples", "[]"]
FREE = {"CLONER_REDIS_URL", "CLONER_WORKER_GPU"}
"""Settings that accept any text; an address is checked at its first use."""

FOLDERS = {"CLONER_CHECKPOINT_DIR", "CLONER_OUT_DIR", "CLONER_REFERENCES_DIR"}
"""Folder settings: only an empty text or a control character is invalid."""


def variables(kind: type[Settings | WorkerSettings]) -> list[str]:
    """Every environment variable of the settings, new ones included."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    fields = kind.model_fields.items()
    return [str(field.validation_alias or f"{prefix}{name}".upper()) for name, field in fields]


def nonsense(kind: type[Settings | WorkerSettings]) -> list[tuple[str, str]]:
    names = [name for name in variables(kind) if name not in FREE]
    return [(name, text) for name in names for text in (NONSENSE[:3] if name in FOLDERS else NONSENSE)]


COMMANDS: dict[str, tuple[list[str], str]] = {
    "nothing": (["run"], "Missing argument"),
    "an unknown command": (["rum"], "No such command 'rum'"),
    "an unknown option": (["run", "b.json", "--speed", "9"], "No such option: --speed"),
    "no workers": (["run", "b.json", "--workers", "0"], "Invalid value for '--workers'"),
    "workers in words": (["run", "b.json", "--workers", "many"], "Invalid value for '--workers'"),
    "an unknown strategy": (["submit", "b.json", "--strategy", "fastest"], "'fastest' is not one of"),
    "an unknown engine": (["run", "b.json", "--engine", "espeak"], "'espeak' is not one of"),
    "an output folder of 300 bytes": (["run", "b.json", "--engine", "fake", "--out", "o" * 300], "File name too long"),
    "an output folder that is a file": (["run", "b.json", "--out", "b.json"], "is not a folder: name one"),
    "an output folder that is a loop": (["run", "b.json", "--out", "loop/a"], "--out"),
    "an unknown batch": (["status", "20260101-000000-abcdef"], "no batch 20260101-000000-abcdef is known"),
    "an id that leads elsewhere": (
        ["cancel", "../../etc/passwd"],
        "'../../etc/passwd' is no batch's id: ids are",
    ),
    "an id that is no text": (["result", os.fsdecode(b"\xff\xfe")], "'\\udcff\\udcfe' is no batch's id"),
    "an id of a megabyte": (["wait", "9" * 100_000], "is no batch's id: ids are printed by `cloner submit`"),
    "codes of no name": (["encode", "anna.wav", "-o", "anna.wav"], "codes are kept as .npy; name the output so"),
    "a checkpoint of no name": (["checkpoint", "pull", "gpt"], "'gpt' is no known checkpoint"),
    "a checkpoint where something is": (["checkpoint", "init", "refs"], "is not empty: name a folder that is empty"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two references of codes, a recording and a valid batch."""
    folder = write_references(tmp_path / "place")
    (folder / "b.json").write_text(RIGHT_JSON)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fleet(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A fleet whose one registered worker does not run: messages for it stay queued."""
    Registry(redis, RedisKeys(settings.fleet), settings.alive_s).register(expected_worker(settings, WorkerSettings()))
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def cloner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process; returns its exit status and standard error."""

    def call(*arguments: str, entry: Callable[[], object] = main) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cloner", *arguments])
        try:
            status = entry()
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return (status if isinstance(status, int) else 0), said.err

    return call


@contextmanager
def nothing_done(folder: Path, redis: Redis) -> Iterator[None]:
    """Check that the block leaves no key in Redis and no file."""

    def traces() -> tuple[set[Any], set[Path]]:
        return set(redis.scan_iter("*")), {*folder.rglob("*")}

    before = traces()
    yield
    assert traces() == before


@pytest.fixture
def refuse(place: Path, fleet: Settings, redis: Redis, cloner: Call) -> Callable[[str, str], None]:
    """Check that a fleet, a run and its plan refuse a batch, with this message."""

    def refuse(batch: str, sentence: str) -> None:
        with nothing_done(place.parent, redis):
            here = [batch, "--engine", "fake", "--out", "out"]
            for command in (["submit", batch], ["run", *here], ["plan", *here]):
                status, said = cloner(*command)
                assert status == 2
                assert sentence in said
                assert max(map(len, said.splitlines())) < 3_000

    return refuse


Refuse = Callable[[str, str], None]


@pytest.mark.parametrize(("name", "content", "sentence"), BATCH_FILES.values(), ids=BATCH_FILES)
def test_a_file_that_is_no_batch(place: Path, refuse: Refuse, name: str, content: str | bytes, sentence: str) -> None:
    (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse(name, sentence)


@pytest.mark.parametrize(("make", "sentence"), FILES.values(), ids=FILES)
def test_a_batch_file_that_is_no_file(place: Path, refuse: Refuse, make: bad.Make, sentence: str) -> None:
    (place / "b.json").unlink()
    make(place / "b.json")
    refuse("b.json", sentence)


@pytest.mark.parametrize(("changes", "sentence"), ROWS.values(), ids=ROWS)
def test_a_row_that_makes_no_sense(place: Path, refuse: Refuse, changes: dict[str, Any], sentence: str) -> None:
    (place / "b.json").write_text(json.dumps({"tasks": [task(0), task(1, **changes)]}))
    refuse("b.json", sentence)


@pytest.mark.parametrize(("generation", "sentence"), GENERATION.values(), ids=GENERATION)
def test_a_generation_that_makes_no_sense(place: Path, refuse: Refuse, generation: object, sentence: str) -> None:
    (place / "b.json").write_text(json.dumps({"tasks": [task()], "generation": generation}))
    refuse("b.json", sentence)


@pytest.mark.parametrize(("make", "sentence"), CODES.values(), ids=CODES)
def test_codes_that_are_none(place: Path, refuse: Refuse, make: bad.Make, sentence: str) -> None:
    make(place / "x.npy")
    (place / "b.json").write_text(json.dumps({"tasks": [task(npy_file="x.npy")]}))
    refuse("b.json", sentence)
    assert not (place / "door").exists()


@pytest.mark.parametrize(("make", "sentence"), RECORDINGS.values(), ids=RECORDINGS)
def test_recordings_that_are_none(place: Path, refuse: Refuse, make: bad.Make, sentence: str) -> None:
    make(place / "x.wav")
    batch = {"speakers": [{"id": 1, "reference": {"audio": "x.wav", "text": "Said."}, "texts": ["One."]}]}
    (place / "b.json").write_text(json.dumps(batch))
    refuse("b.json", sentence)


@pytest.mark.parametrize(("name", "make", "sentence"), FOLDER.values(), ids=FOLDER)
def test_a_folder_of_references_that_has_none(
    place: Path, cloner: Call, fleet: Settings, redis: Redis, name: str, make: bad.Make, sentence: str
) -> None:
    save_recording(place / "voices/anna/a.wav", "I am Anna.")
    make(place / "voices/anna" / name)
    (place / "b.csv").write_text("speaker_id,text\nanna,One.\n")
    with nothing_done(place, redis):
        status, said = cloner("submit", "b.csv", "--references", "voices")
    assert (status, sentence in said) == (2, True), said


def test_references_elsewhere_are_taken_where_a_setting_names_their_folder(
    place: Path, cloner: Call, fleet: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "refs").rename(place.parent / "archive")
    (place / "refs").symlink_to("../archive")
    with nothing_done(place, redis):
        status, said = cloner("submit", "b.json")
    assert status == 2
    assert f"leads to '{place.parent}/archive/0.npy', outside of the batch's folder" in said
    assert "copy it there, or set CLONER_REFERENCES_DIR to a folder that holds it" in said
    monkeypatch.setenv("CLONER_REFERENCES_DIR", str(place.parent / "archive"))
    assert Client().submit("b.json").id


def test_an_output_may_not_leave_by_a_link(place: Path, cloner: Call, redis: Redis) -> None:
    (place / "out").mkdir()
    (place / "out/out").symlink_to("/tmp")
    with nothing_done(place, redis):
        status, said = cloner("run", "b.json", "--engine", "fake", "--out", "out")
    assert status == 2
    assert "output_file 'out/0.wav' leads out of the output root by a link, to '/tmp'; name a file inside" in said


@pytest.mark.parametrize(
    "make",
    [
        bad.recording(np.stack([bad.tone(1)] * 8, axis=1)),
        bad.recording(np.stack([bad.tone(1)] * 1024, axis=1)),
        bad.recording(bad.tone(1, 8_000), 8_000, subtype="ULAW"),
        bad.three_hours,
    ],
    ids=["8 channels", "1024 channels", "telephone", "3 hours"],
)
def test_a_recording_that_is_odd_is_taken_and_costs_little(place: Path, make: bad.Make) -> None:
    make(place / "x.wav")
    tracemalloc.start()
    assert recording_file_problem(place / "x.wav") is None
    data = load_reference(Reference(ReferenceKind.AUDIO, (place / "x.wav",), "Said."))
    assert tracemalloc.get_traced_memory()[1] < 64 * MB
    tracemalloc.stop()
    assert audio_from_bytes(data.data).size <= 30 * 44_100


def test_codes_in_another_order_and_width_are_taken(place: Path) -> None:
    bad.codes(np.asfortranarray(bad.good_codes().astype(">i8")))(place / "x.npy")
    assert codes_file_problem(place / "x.npy") is None


@pytest.mark.parametrize(("name", "make", "sentence"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_loaded(
    tiny_checkpoint: Path, tmp_path: Path, cloner: Call, name: str, make: bad.Make, sentence: str
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint", copy_function=os.link))
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(whole)
    make(folder / name)

    def load() -> None:
        with report_errors():
            make_engine(Settings(checkpoint_dir=folder, engine=EngineName.BATCHED), "cpu").load(lambda _line: None)

    status, said = cloner(entry=load)
    assert (status, len(said.splitlines())) == (78, 1)
    assert sentence in said
    assert not (folder / "door").exists()


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_none(cloner: Call, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", url)
    status, said = cloner("fleet")
    assert status == 2
    assert said.startswith(("CLONER_REDIS_URL is not a Redis address: write", "CLONER_REDIS_URL has an option behind"))
    assert "secret" not in said


@pytest.mark.parametrize(("name", "text"), nonsense(Settings))
def test_a_setting_of_nonsense(cloner: Call, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    status, said = cloner("fleet")
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"{name}={text!r}: give ")


@pytest.mark.parametrize(("name", "text"), nonsense(WorkerSettings))
def test_a_workers_setting_of_nonsense(cloner: Call, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", "redis://localhost:1")
    monkeypatch.setenv(name, text)
    status, said = cloner(entry=worker_main)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"{name}={text!r}: give ")


@pytest.mark.parametrize(("arguments", "sentence"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_makes_no_sense(
    place: Path, cloner: Call, fleet: Settings, redis: Redis, arguments: list[str], sentence: str
) -> None:
    (place / "loop").symlink_to("loop")
    with nothing_done(place, redis):
        status, said = cloner(*arguments)
    assert status == 2
    assert sentence in " ".join(said.replace("│", "").split())


@pytest.mark.slow
def test_a_dozen_of_them_as_processes_of_their_own(place: Path, fleet: Settings, redis: Redis) -> None:
    """The same by the installed command, in a process of its own."""
    chosen = ["utf-16", "latin-1", "deep JSON", "a YAML bomb", "a CSV line of commas", "CSV with a long cell"]
    batches = {name: BATCH_FILES[name] for name in chosen}
    rows = ["a text of 10 MB", "an output above", "a reference that is a device", "a speaker with a line feed"]
    batches |= {
        row: (f"{number}.json", json.dumps({"tasks": [task(0), task(1, **ROWS[row][0])]}), ROWS[row][1])
        for number, row in enumerate(rows)
    }
    bad.fifo(place / "pipe.json")
    bad.link("/dev/zero")(place / "device.yaml")
    for number, (name, content, _) in enumerate(batches.values()):
        (place / f"{number}-{name}").write_bytes(content if isinstance(content, bytes) else content.encode())
    asked = {f"{number}-{name}": sentence for number, (name, _, sentence) in enumerate(batches.values())}
    asked |= {"pipe.json": "it is not a file", "device.yaml": "it is not a file"}
    with nothing_done(place, redis):
        for name, sentence in asked.items():
            ran = run_cloner("submit", name, cwd=place)
            assert (ran.returncode, ran.stdout) == (2, "")
            assert sentence in ran.stderr
            assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_run_with_a_checkpoint_that_is_a_program_does_not_run_it(
    place: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    bad.program_for_weights(folder / "model.pth")
    ran = run_cloner(
        "run", "b.json", "--out", "out", "--workers", "1", cwd=place, env={"CLONER_CHECKPOINT_DIR": str(folder)}
    )
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "model.pth holds more than weights, and loading it could run a program: refused" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (folder / "door").exists()
    assert not list((place / "out").rglob("*.wav"))
