"""Settings from the environment, and their table in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.errors import BadSetting
from cloner.settings import Settings, load_settings, load_worker_settings, redacted

README = Path(__file__).parents[2] / "README.md"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FISH_MODEL_MEMORY_GB", "5.3")
    monkeypatch.setenv("CLONER_ENGINE", "fake")
    monkeypatch.setenv("CLONER_WORKER_INDEX", "3")
    assert (load_settings().model_memory_gb, load_settings().engine) == (5.3, "fake")
    assert load_worker_settings().index == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FISH_MODEL_MEMORY_GB", "0"),
        ("FISH_MODEL_MEMORY_GB", "nan"),
        ("CLONER_ENGINE", "espeak"),
        ("CLONER_BOX", "two words"),
        ("CLONER_STOP_S", "soon"),
    ],
)
def test_nonsense_is_named_with_its_variable_and_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match=f"{name}='{value}': "):
        load_settings()


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
        default = "" if field.default is None else f"`{getattr(field.default, 'value', field.default)}`"
        assert f"| `{variable}` | {default} | {field.description} |" in text
