"""What a reviewer needs, checked before anything starts."""

from __future__ import annotations

from cloner.recogniser.models import find_model
from cloner.review.packages import require_packages
from cloner.settings import Settings


def check_review(settings: Settings) -> None:
    """Look for the packages, and for the recogniser's model if the settings name one; nothing is imported or loaded.

    Raises `MissingPackage`, `BadSetting`.
    """
    require_packages(words=settings.recogniser is not None)
    if settings.recogniser:
        find_model(settings.recogniser, settings.recogniser_cache)
