"""``python -m cloner``, and the command `cloner`."""

from __future__ import annotations

from cloner.commandline import sentences


def main() -> None:
    """Run the command line, importing it where Ctrl-C is answered already."""
    with sentences():
        from cloner.cli import main as run

        run()


if __name__ == "__main__":
    main()
