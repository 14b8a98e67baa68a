"""Commands that serve what monitoring knows of the fleet, until they are stopped: `flower` and `metrics`."""

from __future__ import annotations

from typing import Annotated

import typer

from cloner.settings import load_settings


def flower() -> None:
    """Watch the fleet in a browser: Flower, and a page of ours. Needs FLOWER_BASIC_AUTH=user:password."""
    from cloner.monitoring.flower.server import serve

    raise typer.Exit(serve(load_settings()))


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9464,
) -> None:
    """Show what the fleet does to Prometheus, on http://HOST:PORT/metrics."""
    from cloner.monitoring.prometheus import serve

    serve(load_settings(), host, port)
