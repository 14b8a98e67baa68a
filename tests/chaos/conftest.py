"""Real fleets, as in the integration tests, to which terrible things are done."""

from __future__ import annotations

from tests.integration.conftest import client, launch, settings, tiny_checkpoint

__all__ = ["client", "launch", "settings", "tiny_checkpoint"]
