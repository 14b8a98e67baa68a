"""Flower's web server, on an address that another program may have taken."""

from __future__ import annotations

import flower.command
from flower.app import Flower

from cloner.errors import UsageError


def report_taken_address() -> None:
    """Have Flower raise `UsageError` where it cannot listen: it has no interface for that."""
    flower.command.Flower = ListeningFlower


class ListeningFlower(Flower):  # type: ignore[misc] # Flower has no types
    """Flower, which says what to do where it cannot listen."""

    def start_http_server(self) -> int | None:
        """Returns the port; None for a Unix socket. Raises `UsageError`."""
        options = self.options
        where = options.unix_socket or f"{options.address}:{options.port}"
        try:
            port: int | None = super().start_http_server()
        except (OSError, UnicodeError) as error:
            raise UsageError(
                f"Flower cannot listen on {where} ({error}): give another FLOWER_ADDRESS or FLOWER_PORT"
            ) from error
        return port
