"""Tags in texts that the model does not know, and would speak."""

from __future__ import annotations

import re

from cloner.text.pauses import without_pauses

_SSML = (
    "speak|voice|p|s|w|break|emphasis|prosody|say-as|phoneme|sub|audio|mark|lang|desc|(?:amazon|google|mstts):[a-z-]+"
)
_TAG = re.compile(rf"</?({_SSML})(?:\s[^<>]*)?/?>|\[([a-z]+)(?:[ :=][^\[\]]*)?\]", re.IGNORECASE)


def unknown_tags(text: str) -> dict[str, str]:
    """SSML and tags such as ``[laugh]`` in a text: their names in small letters, and how each is first spelt.

    Fish-speech's own tags, such as ``(excited)``, are not among them, and nor are pauses (`cloner.text.pauses`).
    """
    if "<" not in text and "[" not in text:
        return {}
    tags: dict[str, str] = {}
    for found in _TAG.finditer(without_pauses(text)):
        tags.setdefault((found[1] or found[2]).lower(), found[0])
    return tags
