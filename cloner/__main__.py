"""``python -m cloner``, which is also the command `cloner`."""

from __future__ import annotations

from cloner.commandline import report_errors
from cloner.process import lasting_imports


def _log_error(message: str) -> None:
    from cloner.events import Event
    from cloner.logs import log_event

    log_event(Event.FAILED, error=message)


def main() -> None:
    """Run the command line. It is imported inside `report_errors`, so that Ctrl-C during the import is handled, too."""
    with report_errors(_log_error):
        with lasting_imports():
            from cloner.cli.main import command_line

        command_line()


if __name__ == "__main__":
    main()
