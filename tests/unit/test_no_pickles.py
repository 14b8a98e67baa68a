"""Nothing in the tree unpickles what it reads: a file, or a message, could run a program."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("cloner", "launcher", "ops", "tests") for path in sorted((ROOT / name).rglob("*.py"))]
SAFE = {"np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
NEVER = {
    "pickle.load",
    "pickle.loads",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "yaml.unsafe_load",
    "eval",
    "exec",
}


def unsafe_calls(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: word.value for word in node.keywords}
            keyword, value = SAFE.get(name, ("", None))
            constant = given.get(keyword)
            if name in NEVER or (keyword and not (isinstance(constant, ast.Constant) and constant.value is value)):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    assert list(unsafe_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "torch.load(path)",
        "pickle.loads(data)",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert len(list(unsafe_calls(source))) == 1
