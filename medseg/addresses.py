"""Addresses of models that are no paths, and which room fetches them.

A model is asked for on floor 3, and the registry that keeps some stands above it. So the table is empty here, and
``medseg/__init__.py``, which every import of this package runs, puts the registry into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fetched:
    """What an address led to.

    Attributes:
        address: as it was asked for, such as ``models:/NAME@ALIAS``, which may mean another model tomorrow.
        version: the address that always means this one, ``models:/NAME/3``.
        digest: of the package, as its registry keeps it.
        folder: the package on this machine.
    """

    address: str
    version: str
    digest: str
    folder: Path


FETCHERS: dict[str, Callable[[str, str | None], Fetched]] = {}
"""By the scheme of an address: what makes a folder on this machine of it, given the package's digest where that is
known."""


def fetched(path: Path, digest: str | None = None) -> Fetched | None:
    """What an address such as ``models:/NAME@ALIAS`` leads to; None for a path.

    Args:
        path: the path or address.
        digest: of the package that it must lead to; None takes whatever it means now.

    Raises:
        MedsegError: where it cannot be fetched.
    """
    scheme, mark, _ = str(path).partition(":/")
    fetch = FETCHERS.get(scheme) if mark else None
    return None if fetch is None else fetch(str(path), digest)


def local(path: Path) -> Path:
    """The path itself, or the folder that an address was fetched to.

    Raises:
        MedsegError: where it cannot be fetched.
    """
    found = fetched(path)
    return path if found is None else found.folder
