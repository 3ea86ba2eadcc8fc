"""One job, one process: a second start on the same output is refused while the first one lives.

The lock is the operating system's (``flock``), so that a process that was killed leaves none behind. The process that
runs a job holds its lock file; each worker that it starts shares another one, so that a new start is refused as long as
a worker of a killed parent still writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import OutputError
from medseg.scans.sink import as_output_error


@contextmanager
def held(output: Path) -> Iterator[None]:
    """Holds the job of an output; its folder must exist.

    Raises:
        OutputError: where another process, or its worker, is writing the same output.
    """
    path = _lock_of(output)
    with _locked(path, output, fcntl.LOCK_EX):
        with _locked(_workers_of(output), output, fcntl.LOCK_EX):
            _workers_of(output).unlink(missing_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OutputError), _locked(_workers_of(output), output, fcntl.LOCK_EX):
                _workers_of(output).unlink(missing_ok=True)  # else a worker lives on, and still counts
            path.unlink(missing_ok=True)


@contextmanager
def shared(output: Path) -> Iterator[None]:
    """Held by a worker while it writes.

    Raises:
        OutputError: where a new start has taken the job over.
    """
    with _locked(_workers_of(output), output, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(path: Path, output: Path, kind: int) -> Iterator[None]:
    while True:
        with as_output_error(output):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise OutputError(
                f"{output} is being written by another medseg process: wait for it to end, or give another -o"
            ) from None
        if _still(path, fd):
            break
        os.close(fd)  # whoever held it has removed it meanwhile: what was locked is no longer the file of that name
    try:
        yield
    finally:
        os.close(fd)


def _still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


def _workers_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.workers")
