"""Print the requirements of pyproject.toml for some extras, one a line: `requirements.py worker`."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in [
    *project["dependencies"],
    *(r for extra in sys.argv[1:] for r in project["optional-dependencies"][extra]),
]:
    print(requirement)
