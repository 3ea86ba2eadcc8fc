"""What code a run came from, as tags."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import medseg

GIT_SECONDS = 5.0
"""How long git may take to answer; without its answer the run carries the version alone."""

PACKAGES = ("torch", "monai", "lightning", "mlflow", "numpy")


def code_tags() -> dict[str, str]:
    """The tags of the code: ``medseg.version``, git commit and dirtiness, Python's and the libraries'
    versions.

    The commit is there where the package stands in a git checkout that tracks it, under the name that
    MLflow's table shows (``mlflow.source.git.commit``); ``medseg.git.dirty`` says whether the package differs
    from the commit.
    """
    tags = {"medseg.version": medseg.__version__, "python.version": platform.python_version()}
    for package in PACKAGES:
        try:
            tags[f"{package}.version"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**tags, **git_tags(Path(medseg.__file__).parent)}


def git_tags(folder: Path) -> dict[str, str]:
    """Commit and dirtiness of a package's folder; nothing where no checkout tracks its ``__init__.py``."""
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return {}
    return {"mlflow.source.git.commit": commit, "medseg.git.dirty": str(bool(changes)).lower()}


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
