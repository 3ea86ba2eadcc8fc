"""What is kept for the next process: seek indices of gzip streams, copies of streams that cannot be read by position.

The folder is the user's own: nobody else may look into it. Names in it are digests, since files are named after
patients. It holds nothing that cannot be made again, so it may be emptied at any time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from medseg.errors import ConfigError
from medseg.files import fingerprint
from medseg.scans.header import reason

SAMPLE_BYTES = 1 << 16
"""What a key sees of a file's two ends; a compressed stream ends with the checksum of all its values."""


def cache_folder() -> Path:
    """The folder, made where it is missing: $MEDSEG_CACHE, else $XDG_CACHE_HOME/medseg, else ~/.cache/medseg.

    Raises:
        ConfigError: where it cannot be written, or belongs to someone else.
    """
    folder = _place()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise ConfigError(
            f"{folder}: the cache folder cannot be made ({reason(error)}); set MEDSEG_CACHE to a folder of yours"
        ) from error
    if owner != os.getuid() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: the cache folder is not yours to write; set MEDSEG_CACHE to a folder of yours")
    return folder


def _place() -> Path:
    if chosen := os.environ.get("MEDSEG_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medseg"


def key_of(path: Path) -> str:
    """A digest that changes with a file: of its size, its time and its two ends, never of its name."""
    digest = hashlib.sha256(fingerprint(path).encode())
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
