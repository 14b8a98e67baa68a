"""Write the hashes of the images' packages, for ops/Dockerfile: ops/client.txt, ops/worker.txt and ops/reviewer.txt.

    .venv/bin/python ops/scripts/hashes.py

The packages are those that are installed here for the extras `launcher`, `worker` and `review`, in the versions of
ops/constraints.txt; the hashes are of the files that pip installs by default on x86_64 and aarch64. Packages that come
from PyTorch's index or are many gigabytes of NVIDIA's have none.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WITHOUT = ("torch", "triton")
"""Packages without hashes. Those of CUDA that torch needs are not installed with its CPU build, so they have none."""

ARM = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)]
DRY_RUN = ["--isolated", "--no-deps", "--ignore-installed", "--dry-run"]

OLD_PYTHON = {"async-timeout": "5.0.1"}
"""What the client's packages need only before Python 3.11.3, as Debian has it; so it is not installed here."""


def closure(requirements: list[str]) -> set[str]:
    """The names of packages that these requirements need, themselves included."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in found:
                found.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in distribution(name).requires or []]
    return {name for name, _ in found if name not in WITHOUT}


def version_of(name: str) -> str:
    """The version that the images get."""
    return OLD_PYTHON.get(name) or version(name)


def files(names: list[str], *options: str) -> dict[str, tuple[str, str]]:
    """Name -> address and SHA-256 of the file that pip would install."""
    pins = [f"{name}=={version_of(name)}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", *DRY_RUN, "--report", str(report)]
        subprocess.run([*command, *options, *pins], check=True)
        installs: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    found = {}
    for install in installs:
        info = install["download_info"]
        name = canonicalize_name(install["metadata"]["name"])
        found[name] = (info["url"], info["archive_info"]["hashes"]["sha256"])
    return found


def write(path: Path, names: set[str]) -> None:
    """Write a file of requirements: each package with its version, and its hash for each platform."""
    here = files(sorted(names))
    of_one_platform = sorted(name for name, (url, _) in here.items() if not url.endswith(("-none-any.whl", ".tar.gz")))
    options = [part for tag in ARM for part in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as folder:
        arm = files(of_one_platform, "--only-binary", ":all:", "--python-version", "3.11", "--target", folder, *options)
    lines = []
    for name, (_, digest) in sorted(here.items()):
        digests = sorted({digest, arm.get(name, ("", digest))[1]})
        hashes = (f"    --hash=sha256:{found}" for found in digests)
        lines.append(" \\\n".join([f"{name}=={version_of(name)}", *hashes]))
    path.write_text("# Made by ops/scripts/hashes.py.\n" + "\n".join(lines) + "\n", encoding="utf-8")


def requirements(extra: str) -> list[str]:
    """What pyproject.toml asks for, with an extra."""
    command = [sys.executable, "ops/scripts/requirements.py", extra]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def pinned(file: str) -> set[str]:
    """The names of packages that a file in ops/ pins."""
    lines = ROOT.joinpath("ops", file).read_text().splitlines()
    return {line.partition("==")[0] for line in lines if line and not line.startswith("#")}


if __name__ == "__main__":
    client = closure(requirements("launcher")) | set(OLD_PYTHON)
    write(ROOT / "ops/client.txt", client)
    worker = (closure(requirements("worker")) - client) | pinned("fish-speech.txt")
    write(ROOT / "ops/worker.txt", worker)
    write(ROOT / "ops/reviewer.txt", (closure(requirements("review")) - client - worker) | pinned("review.txt"))
