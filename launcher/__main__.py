"""``python -m launcher``, and the command `launcher`."""

from __future__ import annotations

from cloner.commandline import report_errors
from cloner.process import lasting_imports


def _log_error(sentence: str) -> None:
    from cloner.events import Event
    from cloner.logs import log_event

    log_event(Event.FAILED, error=sentence)


def main() -> None:
    """Run the command line, importing it inside `report_errors`: Ctrl-C during the import is one line, too."""
    with report_errors(_log_error):
        with lasting_imports():
            from cloner.logs import configure
            from launcher.cli import app

        configure()
        app()


if __name__ == "__main__":
    main()
