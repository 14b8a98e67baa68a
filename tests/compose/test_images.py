"""The Docker images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.compose import CLIENT_IMAGE, CPU_IMAGE, ON_CPU, REVIEWER_IMAGE, ROOT, docker

BASE_MB = 130
"""Size of python:3.11.14-slim-bookworm; the tests' substitute for it is larger."""


def megabytes(image: str) -> float:
    return float(json.loads(docker("image", "inspect", image))[0]["Size"]) / 1e6


def test_the_clients_image_is_small_and_has_no_torch() -> None:
    base = next(line.split()[1] for line in (ROOT / "ops/Dockerfile").read_text().splitlines() if "AS base" in line)
    assert megabytes(CLIENT_IMAGE) - megabytes(base) + BASE_MB < 400
    found = "import importlib.util as u; print([bool(u.find_spec(m)) for m in ('torch', 'flower', 'cloner')])"
    printed = docker("run", "--rm", "--read-only", "--user", "4321:4321", CLIENT_IMAGE, "python", "-c", found)
    assert printed.strip() == "[False, True, True]"


def test_nobody_is_root_unless_told_to_be() -> None:
    for image in (CLIENT_IMAGE, CPU_IMAGE):
        assert docker("run", "--rm", image, "id", "-u").strip() == "1000"


def test_the_reviewers_image_has_the_models_and_needs_no_network() -> None:
    files = [part for file in ON_CPU for part in ("-f", file)]
    env = {**os.environ, "REDIS_PASSWORD": "x", "FLOWER_PASSWORD": "x"}
    subprocess.run(["docker", "compose", *files, "build", "review"], cwd=ROOT, env=env, check=True)
    loads = "import faster_whisper, whisper_normalizer; from cloner.review.models import ReviewModels; ReviewModels()"
    locked = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--user", "4321:4321")
    docker("run", "--rm", *locked, REVIEWER_IMAGE, "python", "-c", loads)


def test_a_change_of_the_code_installs_no_package_anew(tmp_path: Path) -> None:
    for name in ("cloner", "launcher", "ops", "pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
        source = ROOT / name
        if source.is_dir():  # without compiled modules, which other processes write meanwhile
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    with (tmp_path / "cloner/__init__.py").open("a") as file:
        file.write("# changed\n")
    printed = docker("build", "--file", str(tmp_path / "ops/Dockerfile"), "--target", "client", str(tmp_path))
    _, _, after = printed.partition(": RUN pip install --no-deps --require-hashes -r client.txt")
    assert after.splitlines()[1].strip() == "---> Using cache"
    assert "Successfully installed cloner" in after
