"""Starts Flower on the fleet's Redis. Flower reads its own settings from ``FLOWER_*`` environment variables."""

from __future__ import annotations

import os
import threading

from cloner.errors import BadSetting, MissingPackage
from cloner.queueing.app import make_app
from cloner.settings import Settings

EXIT_S = 3.0
"""Seconds that Flower gets to exit before it is killed."""


def serve(settings: Settings) -> int:
    """Run Flower until it is stopped; return its exit status.

    Raises `BadSetting` without a login, `UsageError` if the address cannot be listened on, `MissingPackage`.
    """
    check_login(os.environ.get("FLOWER_BASIC_AUTH", ""), os.environ.get("FLOWER_AUTH", ""))
    # Else Flower would run a flowerconfig.py of the folder that it is started in.
    os.environ.setdefault("FLOWER_CONF", os.devnull)
    # Flower's own default is all addresses.
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    # Read-only by default: Flower could grow a worker's pool, and a second process would load a second model.
    os.environ.setdefault("FLOWER_READ_ONLY", "true")
    # The arguments say whose texts a task has, and how many; ids say nothing.
    os.environ.setdefault("FLOWER_TASKS_COLUMNS", "name,args,state,received,runtime,worker")
    app = make_app(settings)
    try:
        from cloner.monitoring.flower.listening import report_taken_address
        from cloner.monitoring.flower.pages import install
        from cloner.monitoring.flower.security import protect
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{error.name} is not installed: run `pip install '.[launcher]'` in a checkout") from None
    install(settings)
    protect()
    report_taken_address()
    status = int(app.start(["flower"]) or 0)
    # While Redis does not answer, Flower's threads keep retrying, and Python would wait for them.
    killer = threading.Timer(EXIT_S, os._exit, (status,))
    killer.daemon = True
    killer.start()
    return status


def check_login(basic: str, oauth: str) -> None:
    """Raise `BadSetting` unless a login is set: the pages show the names of every user's batches."""
    logins = [login.partition(":") for login in basic.split(",")]
    if not (oauth or all(user.strip() and password.strip() for user, _, password in logins)):
        raise BadSetting(
            "FLOWER_BASIC_AUTH is not set, or not user:password: give one, or several with commas between them "
            "(or FLOWER_AUTH, for Flower's OAuth)"
        )
