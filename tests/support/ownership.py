"""What a batch knows of files, for tests of the files alone."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Known:
    """Owns the files with these digests; with none given, all."""

    digests: set[str] | None = None
    published: list[str] = field(default_factory=list)

    def publishes(self, digest: str) -> None:
        self.published.append(digest)

    def owns(self, digest: str) -> bool:
        return self.digests is None or digest in self.digests
