"""The hashes of the images' packages (ops/scripts/hashes.py) belong to the versions and requirements of today."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OPS = Path(__file__).parents[3] / "ops"


def pins(name: str) -> dict[str, str]:
    """Package -> version of a file of requirements."""
    found = re.findall(r"^([\w.-]+)==([\w.+]+)", (OPS / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def required(*extras: str) -> set[str]:
    project: dict[str, Any] = tomllib.loads((OPS.parent / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


@pytest.mark.parametrize("name", ["client.txt", "worker.txt", "reviewer.txt"])
def test_each_package_has_the_usual_version_and_hashes_and_no_address(name: str) -> None:
    text = (OPS / name).read_text()
    usual = pins("constraints.txt") | pins("fish-speech.txt") | pins("review.txt")
    # setuptools comes with a virtual environment: `make setup` does not install it.
    found = {package: version for package, version in pins(name).items() if package != "setuptools"}
    assert {package: usual.get(package) for package in found} == found
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(name))
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry
    assert "//" not in text


def test_all_requirements_but_torch_have_hashes() -> None:
    assert required("launcher") <= set(pins("client.txt"))
    both = set(pins("client.txt")) | set(pins("worker.txt"))
    assert (required("worker", "launcher") | set(pins("fish-speech.txt"))) - both == {"torch"}
    assert "triton" not in both
    all_three = both | set(pins("reviewer.txt"))
    assert (required("review") | set(pins("review.txt"))) - all_three == {"torch"}
    assert not both & set(pins("reviewer.txt"))
