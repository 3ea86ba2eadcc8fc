"""The code's tags: a commit only where the package is tracked by its checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import medseg
from medseg.tracking import versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "medseg"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(folder.parent, "init")
    return folder


def test_commit_and_dirtiness_of_a_checkout(package: Path) -> None:
    assert versions.git_tags(package) == {}
    git(package, "add", ".")
    assert versions.git_tags(package) == {}
    git(package, "commit", "-m", "one")
    commit = git(package, "rev-parse", "HEAD")
    assert versions.git_tags(package) == {"mlflow.source.git.commit": commit, "medseg.git.dirty": "false"}
    (package.parent / "notes.txt").write_text("beside the package")
    assert versions.git_tags(package)["medseg.git.dirty"] == "false"
    (package / "new.py").write_text("")
    assert versions.git_tags(package)["medseg.git.dirty"] == "true"


def test_an_installed_package_has_no_commit_of_the_folder_around_it(package: Path) -> None:
    git(package, "add", ".")
    git(package, "commit", "-m", "one")
    installed = package.parent / ".venv" / "medseg"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert versions.git_tags(installed) == {}


def test_without_git_the_version_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    tags = versions.code_tags()
    assert tags["medseg.version"] == medseg.__version__
    assert "mlflow.source.git.commit" not in tags and tags["torch.version"]
