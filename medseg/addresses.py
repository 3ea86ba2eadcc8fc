"""Addresses of models that are no paths, and which room fetches them.

A model is asked for on floor 3, and the registry that keeps some stands above it. So the table is empty here, and
``medseg/__init__.py``, which every import of this package runs, puts the registry into it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

FETCHERS: dict[str, Callable[[str], Path]] = {}
"""By the scheme of an address: what makes a folder on this machine of it."""


def local(path: Path) -> Path:
    """The path itself, or the folder that an address such as ``models:/NAME@ALIAS`` was fetched to.

    Raises:
        MedsegError: where it cannot be fetched.
    """
    scheme, mark, _ = str(path).partition(":/")
    fetch = FETCHERS.get(scheme) if mark else None
    return path if fetch is None else fetch(str(path))
