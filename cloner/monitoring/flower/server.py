"""Starting Flower on the fleet's Redis. It reads its own settings from ``FLOWER_*`` environment variables."""

from __future__ import annotations

import os
import threading

from cloner.errors import BadSetting, MissingPackage
from cloner.queueing.app import make_app
from cloner.settings import Settings

LAST_S = 3.0
"""Seconds that Flower gets to end by itself."""


def serve(settings: Settings) -> int:
    """Run until told to stop. Raises `BadSetting` where nobody would have to log in, `MissingPackage`."""
    check_login(os.environ.get("FLOWER_BASIC_AUTH", ""), os.environ.get("FLOWER_AUTH", ""))
    # To watch, not to steer: another process in a worker's pool would load a second model.
    os.environ.setdefault("FLOWER_READ_ONLY", "true")
    # Whose texts and how many, rather than ids.
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", "name,args,state,received,runtime,worker")
    app = make_app(settings)
    try:
        from cloner.monitoring.flower.pages import install
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{error.name} is not installed: run `pip install '.[launcher]'` in a checkout") from None
    install(settings)
    status = int(app.start(["flower"]) or 0)
    # While Redis is away, threads of Flower's ask it again and again, and Python would wait for them.
    last = threading.Timer(LAST_S, os._exit, (status,))
    last.daemon = True
    last.start()
    return status


def check_login(basic: str, oauth: str) -> None:
    """Raise `BadSetting` unless there is a login; names of other people's batches are nobody else's business."""
    logins = [login.partition(":") for login in basic.split(",")]
    if not (oauth or all(user.strip() and password.strip() for user, _, password in logins)):
        raise BadSetting(
            "FLOWER_BASIC_AUTH is not set, or not user:password: give one, or several with commas between them "
            "(or FLOWER_AUTH, for Flower's OAuth)"
        )
