"""Fetching a model's folder from the Hugging Face hub; each file is compared with the digest that the hub publishes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloner.errors import BadSetting, ClonerError, MissingPackage, first_line

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling


@dataclass(frozen=True)
class ModelKind:
    """A kind of model that may be fetched."""

    name: str
    """What a user calls it."""
    origin: str
    """What a page must be that publishes one, as the end of a sentence."""
    published: Mapping[str, str]
    """Models that have a short name, by that name."""
    files: Sequence[str]
    """The files that are fetched, where they are published."""
    missing: Callable[[Path], list[str]]
    """Names of the files that a folder lacks."""

    def repository(self, name: str) -> tuple[str, str | None]:
        """The model ("owner/model") and the revision of a name; "@" and a branch, tag or commit may follow the model.

        Raises `BadSetting`.
        """
        name, _, revision = name.partition("@")
        repo = name if "/" in name else self.published.get(name)
        if repo is None:
            known = ", ".join(self.published)
            raise BadSetting(f"{name!r} is no known {self.name}: give {known}, or a full name as owner/model")
        return repo, revision or None


def fetch(kind: ModelKind, name: str, directory: Path, final: Path) -> None:
    """Fetch the model `name` into `directory`, by the commit to which its revision leads at the moment.

    A fetch that was interrupted is resumed. A file that is not what the hub publishes is removed, and the next fetch
    gets it again. `final` is where users find the folder. Raises `BadSetting`, `MissingPackage` or another
    `ClonerError`, whose message says what to do.
    """
    repo, revision = kind.repository(name)
    page = f"https://huggingface.co/{repo}"
    by_hand = f"or copy its folder by hand to {final.absolute()}"
    try:
        import huggingface_hub  # imported here because only this function needs it
        from huggingface_hub import errors
    except ModuleNotFoundError:
        raise MissingPackage(
            f"huggingface-hub is not installed: run `pip install huggingface-hub`, {by_hand}"
        ) from None
    try:
        published = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        # By commit: a branch may move between the two.
        huggingface_hub.snapshot_download(
            repo, revision=published.sha, local_dir=directory, allow_patterns=list(kind.files)
        )
    except errors.GatedRepoError:
        raise ClonerError(
            f"{repo} wants its licence accepted: do that at {page}, run `hf auth login`, and pull again; {by_hand}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ClonerError(
            f"there is no model {repo} that you may see: check its name at {page}, or run `hf auth login` if it is"
            f" private; {by_hand}"
        ) from None
    except errors.RevisionNotFoundError:
        raise ClonerError(f"{repo} has no revision {revision!r}: give a branch, tag or commit of {page}") from None
    except errors.HFValidationError:
        raise BadSetting(f"{name.partition('@')[0]!r} is not the name of a model: give it as owner/model") from None
    except Exception as error:  # the hub raises errors of its network library, and that library changes
        raise ClonerError(
            f"{repo} could not be fetched ({first_line(error)}): check the network and the disk, and pull again;"
            f" {by_hand}"
        ) from error
    if missing := kind.missing(directory):
        raise ClonerError(
            f"{directory.absolute()} has no {', '.join(missing)} after the pull: check that {page} is {kind.origin},"
            " and pull again"
        )
    _verify(kind, directory, published, page)


def was_interrupted(directory: Path) -> bool:
    """Whether a fetch into the folder has begun: the hub's library leaves a folder of its own there."""
    return (directory / ".cache" / "huggingface").is_dir()


def _verify(kind: ModelKind, directory: Path, published: ModelInfo, page: str) -> None:
    """Raise `ClonerError` if a file is not the published one; those that are not are removed."""
    wrong = []
    for file in published.siblings or []:
        if file.rfilename not in kind.files:
            continue
        path = directory / file.rfilename
        if not (file.lfs or file.blob_id):
            raise ClonerError(f"{page} tells no digest of {path.name}, so what was fetched could not be checked")
        try:
            if not _is_published(path, file):
                path.unlink()
                wrong.append(path.name)
        except OSError as error:
            raise ClonerError(f"{path.absolute()} could not be checked after the pull: {error.strerror}") from error
    if wrong:
        raise ClonerError(
            f"{', '.join(wrong)} in {directory.absolute()}: not the digest that {page} publishes for commit"
            f" {published.sha}; removed, so pull again"
        )


def _is_published(path: Path, file: RepoSibling) -> bool:
    """Whether a file has its published digest: SHA-256 for weights, which Git keeps elsewhere ("LFS"); for others the
    name of Git's object, which is the SHA-1 of a header and the content.

    Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
    """
    with path.open("rb") as content:
        if file.lfs:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.lfs.sha256
        header = f"blob {path.stat().st_size}\0".encode()
        digest = hashlib.sha1(header, usedforsecurity=False)
        return hashlib.file_digest(content, lambda: digest).hexdigest() == file.blob_id
