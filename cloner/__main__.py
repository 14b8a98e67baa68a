"""``python -m cloner``, and the command `cloner`."""

from __future__ import annotations

from cloner.commandline import report_errors


def _say(sentence: str) -> None:
    from cloner.events import Event
    from cloner.logs import log_event

    log_event(Event.FAILED, error=sentence)


def main() -> None:
    """Run the command line, importing it where Ctrl-C is answered already; an error of ours is one sentence."""
    with report_errors(_say):
        from cloner.cli.main import app

        app()


if __name__ == "__main__":
    main()
