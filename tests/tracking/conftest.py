"""One store for all tests of tracking: making one takes MLflow seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import medseg
from medseg.tracking import Store

GUARD = """
import os, socket

LOOPBACK = {"localhost", "127.0.0.1", "::1", "", None, "0.0.0.0", "::"}

def guard(name, host_of):
    original = getattr(socket.socket, name, None) or getattr(socket, name)
    def checked(*arguments, **keywords):
        host = host_of(*arguments, **keywords)
        if host not in LOOPBACK:
            with open(os.environ["GUARD_LOG"], "a") as log:
                log.write(f"{name} {host!r}\\n")
            raise OSError("the guard lets nothing leave this machine")
        return original(*arguments, **keywords)
    setattr(socket.socket if hasattr(socket.socket, name) else socket, name, checked)

def of_address(self, *arguments):
    address = arguments[-1]
    return address[0] if isinstance(address, tuple) else None

for name in ("connect", "connect_ex", "sendto"):
    guard(name, of_address)
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    guard(name, lambda host, *others, **keywords: host.decode() if isinstance(host, bytes) else host)
"""

WATCHED_BY_MLFLOW = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "JENKINS_URL", "GITLAB_CI", "TF_BUILD")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A SQLite store in a folder with a space in its name."""
    return Store.resolve("sqlite:///mlflow.db", tmp_path_factory.mktemp("a store"))


@pytest.fixture
def guarded(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment in which Python refuses and writes down every attempt to leave the machine, and that file."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "attempts.txt"
    log.touch()
    # MLflow sends nothing from tests and continuous integration: those signs are taken away, so that the switch counts.
    environment = {key: value for key, value in os.environ.items() if key not in WATCHED_BY_MLFLOW}
    for switch in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        environment.pop(switch, None)
    paths = (str(tmp_path / "guard"), str(Path(medseg.__file__).parents[1]))
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "GUARD_LOG": str(log)}, log
