"""What code a run came from, as tags."""

from __future__ import annotations

from pathlib import Path

from medseg.versions import commit_of, versions


def code_tags() -> dict[str, str]:
    """The tags of the code: ``medseg.version``, git commit and dirtiness, Python's and the libraries'
    versions.

    The commit is there where the package stands in a git checkout that tracks it, under the name that
    MLflow's table shows (``mlflow.source.git.commit``); ``medseg.git.dirty`` says whether the package differs
    from the commit.
    """
    return {**{f"{package}.version": version for package, version in versions().items()}, **git_tags()}


def git_tags(folder: Path | None = None) -> dict[str, str]:
    """Commit and dirtiness of a package's folder, medseg's own by default; nothing where no checkout tracks it."""
    commit = commit_of(folder)
    if commit is None:
        return {}
    return {"mlflow.source.git.commit": commit.id, "medseg.git.dirty": str(commit.dirty).lower()}
