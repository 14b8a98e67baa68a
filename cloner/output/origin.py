"""What a batch is a version of: a batch that is edited and submitted again owns what its earlier versions have written.

The collector writes it beside the batch's record, so that it does not depend on Redis.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from cloner.output.own_folder import OwnFolder
from cloner.protocol.messages import Manifest

ORIGIN = "origin.json"


class Origin(BaseModel):
    """The file that a batch was read from, as its client saw it, and the folder that its outputs lie in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    prefix: str

    @classmethod
    def of(cls, manifest: Manifest) -> Origin:
        """The origin of a batch."""
        return cls(path=manifest.path, prefix=manifest.prefix)

    def write(self, folder: OwnFolder) -> None:
        """Put it beside a batch's record. Raises `OSError`."""
        folder.write(ORIGIN, [self.model_dump_json().encode()], sync=True)


def read_origin(folder: OwnFolder) -> Origin | None:
    """The origin of the batch with that folder; None if it cannot be read, and the batch is no version of another."""
    try:
        return Origin.model_validate_json(folder.read(ORIGIN))
    except (OSError, ValidationError):
        return None
