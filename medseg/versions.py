"""Which code runs: versions of the packages, and the commit where they stand in a checkout."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import medseg

GIT_SECONDS = 5.0
"""How long git may take to answer; without its answer the version is all that is known."""

PACKAGES = ("torch", "monai", "lightning", "mlflow", "numpy")


@dataclass(frozen=True)
class Commit:
    """A commit of a checkout.

    Attributes:
        id: its hash.
        dirty: whether the package differs from it.
    """

    id: str
    dirty: bool


def versions() -> dict[str, str]:
    """Of medseg, Python, and those of :data:`PACKAGES` that are installed."""
    found = {"medseg": medseg.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit_of(folder: Path | None = None) -> Commit | None:
    """The commit of a package's folder, medseg's own by default; None where no checkout tracks its ``__init__.py``."""
    folder = folder or Path(medseg.__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return None if commit is None or changes is None else Commit(commit, bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
