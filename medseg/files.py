"""Writing beside and renaming, and digests: what every floor does with whole files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, nearest


def absent(path: Path, folders: bool = False) -> str:
    """«PATH does not exist; did you mean 'NAME'?»: the nearest name beside it, but for hidden ones.

    Args:
        folders: whether a folder is wanted, so that files are no answer.
    """
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [p.name for p in beside if not p.name.startswith(".") and (p.is_dir() or not folders)]
    return f"{path} does not exist{nearest(path.name, sorted(names))}"


def partial_of(path: Path) -> Path:
    """Where a file or folder is while it is being written: hidden, beside its final place."""
    return path.with_name(f".{path.name}.partial")


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all: beside, then renamed.

    What UTF-8 cannot hold, as in a file's name of other bytes, is written as an escape that JSON reads again.
    """
    beside = partial_of(path)
    beside.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(beside, path)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON with one key a line, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str, error: type[MedsegError] = MedsegError) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        what: what the file is, for the message: «model.json of the package».
        error: what to raise where it is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} is missing: {what} belongs there") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} is not readable as JSON ({problem}): {what} belongs there") from None


def sha256_of(path: Path) -> str:
    """The SHA-256 digest of a file's bytes, in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """The SHA-256 digest of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprint(*paths: Path) -> str:
    """A digest of files' or folders' names, sizes and times, without reading what they hold."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in files:
            status = os.stat(file)
            name = file.relative_to(path).as_posix()
            digest.update(f"{name}:{status.st_size}:{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
