"""Settings from the environment, and their table in the README."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner.errors import BadSetting
from cloner.settings import (
    Settings,
    WorkerSettings,
    load_settings,
    load_worker_settings,
    misspelt_variables,
    redacted,
)

GPUS = "give numbers or UUIDs that `nvidia-smi -L` lists, with commas between them, as in 0,2; or unset it"

README = Path(__file__).parents[2] / "README.md"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FISH_MODEL_MEMORY_GB", "5.3")
    monkeypatch.setenv("CLONER_ENGINE", "fake")
    monkeypatch.setenv("CLONER_WORKER_INDEX", "3")
    assert (load_settings().model_memory_gb, load_settings().engine) == (5.3, "fake")
    assert load_worker_settings().index == 3


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("CLONER_FLEET", "a.b", "give 1 to 40 letters, digits, - or _"),
        ("CLONER_BOX", "two words", "give 1 to 40 letters, digits, - or _"),
        ("CLONER_ENGINE", "espeak", "give batched or upstream or fake"),
        ("FISH_MODEL_MEMORY_GB", "0", "give a number of GB above 0, such as 8.0"),
        ("FISH_MODEL_MEMORY_GB", "nan", "give a number of GB above 0, such as 8.0"),
        ("CLONER_BATCH_TTL_S", "59", "give a whole number of seconds, 60 to 316224000 (ten years)"),
        ("CLONER_HEARTBEAT_S", "0", "give a number of seconds above 0, at most 86400 (a day)"),
        ("CLONER_ALIVE_S", "1e9", "give a number of seconds above 0, at most 86400 (a day)"),
        ("CLONER_STOP_S", "inf", "give a number of seconds above 0, at most 86400 (a day)"),
        ("CLONER_STOP_S", "nan", "give a number of seconds above 0, at most 86400 (a day)"),
        ("CLONER_LOG_FORMAT", "xml", "give text or json"),
        ("CLONER_FAKE_SLOTS", "2.5", "give a whole number, 1 to 1024"),
        ("CLONER_WORKERS_PER_GPU", "some", "give auto, or a whole number, 1 to 64"),
        ("CLONER_WORKERS_PER_GPU", "0", "give auto, or a whole number, 1 to 64"),
        ("CLONER_GPUS", "0,", GPUS),
        ("CLONER_GPUS", "-1", GPUS),
        ("CLONER_GPUS", "all", GPUS),
        ("CLONER_SLOTS", "0", "give a whole number, 1 to 1024"),
        ("CLONER_DETERMINISTIC", "maybe", "give true or false"),
        ("CLONER_FAKE_LOAD_S", "-1", "give a number of seconds, 0 to 86400 (a day)"),
        ("CLONER_FAKE_SEGMENT_S", "soon", "give a number of seconds, 0 to 86400 (a day)"),
        ("CLONER_WORKER_INDEX", "-1", "give a whole number, 0 or more"),
        ("CLONER_WORKER_CARD", "", "give 1 to 40 letters, digits, - or _"),
        ("CLONER_WORKER_NUMBER", "one", "give a whole number, 0 or more"),
    ],
)
def test_nonsense_is_named_with_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as error:
        load_worker_settings() if "WORKER_" in name else load_settings()
    assert error.value.message == f"{name}={value!r}: {right}"


@pytest.mark.parametrize("kind", [Settings, WorkerSettings])
def test_every_setting_that_can_be_wrong_has_its_sentence(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings | WorkerSettings]
) -> None:
    prefix = str(kind.model_config.get("env_prefix", ""))
    for name, field in kind.model_fields.items():
        monkeypatch.setenv(str(field.validation_alias or f"{prefix}{name}".upper()), "\n")
    with pytest.raises(BadSetting) as error:
        load_settings() if kind is Settings else load_worker_settings()
    assert "give" in error.value.message


def test_a_setting_that_is_empty_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        monkeypatch.setenv(str(field.validation_alias or f"CLONER_{name}".upper()), "")
    assert load_settings() == Settings.model_construct()
    assert load_settings().model_fields_set == set()


def test_a_folder_whose_name_is_not_utf_8_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_OUT_DIR", os.fsdecode(b"/srv/\xe9t\xe9"))
    assert os.fsencode(load_settings().out_dir) == b"/srv/\xe9t\xe9"


def test_all_nonsense_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_STOP_S", "soon")
    monkeypatch.setenv("CLONER_FAKE_SLOTS", "0")
    with pytest.raises(BadSetting, match=r"CLONER_STOP_S=.*CLONER_FAKE_SLOTS="):
        load_settings()


def test_a_missing_redis_says_what_to_give() -> None:
    with pytest.raises(BadSetting, match="CLONER_REDIS_URL is not set"):
        load_settings().require_redis_url()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://user:secret@host/1", "rediss://user:***@host/1"),
        ("redis://:p@ss/w#rd@host:1/0", "redis://:***@host:1/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_the_readme_has_every_setting_with_its_default() -> None:
    text = README.read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"CLONER_{name.upper()}"
        default = "" if field.default in (None, "") else f"`{getattr(field.default, 'value', field.default)}`"
        assert f"| `{variable}` | {default} | {field.description} |" in text


def test_the_batched_engine_has_more_slots_on_a_gpu_unless_they_are_set() -> None:
    assert [Settings().batched_slots(device) for device in ("cpu", "cuda:1")] == [64, 128]
    assert [Settings(slots=7).batched_slots(device) for device in ("cpu", "cuda:1")] == [7, 7]


def test_names_that_are_nearly_settings_are_found() -> None:
    names = [
        "CLONER_REDIS_ULR",
        "CLONER_OUTDIR",
        "cloner_out_dir",
        "CLONER_OUT_DIR",
        "CLONER_UID",
        "CLONER_CUSTOM",
        "PATH",
    ]
    assert list(misspelt_variables(names)) == [
        ("CLONER_OUTDIR", "CLONER_OUT_DIR"),
        ("CLONER_REDIS_ULR", "CLONER_REDIS_URL"),
        ("cloner_out_dir", "CLONER_OUT_DIR"),
    ]
