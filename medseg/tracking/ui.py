"""MLflow's own UI on a store, for this machine alone."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from medseg.errors import MedsegError
from medseg.quiet import quiet_environment
from medseg.tracking import served
from medseg.tracking.store import Store
from medseg.tracking.view import page_of

HOST = "127.0.0.1"
ALLOWED_HOSTS = tuple(f"{name}{port}" for name in (HOST, "localhost") for port in ("", ":*"))
"""What the Host header may say: any port, for one may be forwarded. MLflow's own list has all private networks."""

PORT = 5000
"""Where the search for a free port begins."""

START_SECONDS = 300.0
"""How long the server may take until it answers."""

STOP_SECONDS = 10.0
"""How long it may take to end before it is killed."""

_NOT_THE_SHELLS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_EXPOSE_PROMETHEUS",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    "MLFLOW_SERVER_X_FRAME_OPTIONS",
)
"""Options of a server that the shell may hold for another one, and that would open or break this one."""


def serve(store: Store, port: int | None = None) -> None:
    """Runs MLflow's UI until it is interrupted, and prints the address of the last run's experiment once it answers.

    Of a store that a server holds, only the address is printed: that server shows the UI itself. The server
    listens on 127.0.0.1 alone, checks the Host header, has no assistant (:mod:`medseg.tracking.served`), and neither
    it nor its pages send telemetry.

    Args:
        store: what to show.
        port: where to listen; None takes the first free one from 5000.

    Raises:
        MedsegError: for a port in use, a store that is missing or cannot be opened, or a server that does not start.
        KeyboardInterrupt: on Ctrl-C, after the server has ended.
    """
    if store.remote:
        store.check()
        print(page_of(store.shown, store.headers), flush=True)
        return
    if store.database and not store.database.exists():
        raise MedsegError(
            f"there is no tracking store at {store.database} yet: train first, or name another one with "
            f"MLFLOW_TRACKING_URI"
        )
    store.client()  # the server would tell in a traceback what is wrong with the store
    port = free_port(PORT) if port is None else _wanted(port)
    print("starting MLflow's UI ...", file=sys.stderr, flush=True)
    with _ended_in_order(), _server(store, port) as process:
        _wait_until_ready(process, port)
        print(page_of(f"http://{HOST}:{port}"), flush=True)
        code = process.wait()
    raise MedsegError(f"MLflow's UI on port {port} ended by itself with exit code {code}")


def free_port(start: int) -> int:
    """The first free port of this machine from ``start`` on."""
    for port in range(start, min(start + 1000, 65536)):
        with contextlib.suppress(OSError):
            _bind(port)
            return port
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def server_command(store: Store, port: int) -> list[str]:
    """The server's command; the store's address goes by the environment, for it can hold a password."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--app-name",
        served.NAME,
        "--allowed-hosts",
        ",".join(ALLOWED_HOSTS),
    ]
    if store.artifacts:
        root = store.artifacts.as_uri()
        command += ["--default-artifact-root", root, "--artifacts-destination", root]
    return [*command, "--uvicorn-opts", "--log-level warning"]


def server_environment(store: Store) -> dict[str, str]:
    """The server's environment: telemetry off, no background jobs, none of the shell's options for one."""
    return {
        **{key: value for key, value in quiet_environment().items() if key not in _NOT_THE_SHELLS},
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_REGISTRY_STORE_URI": store.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }


@contextlib.contextmanager
def _server(store: Store, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        server_command(store, port),
        env=server_environment(store),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those it has started, which share its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        try:
            code = process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise MedsegError(f"MLflow's UI did not start on port {port} (exit code {code}); its reason stands above")
    raise MedsegError(f"MLflow's UI did not answer on port {port} within {START_SECONDS:.0f} seconds")


def _wanted(port: int) -> int:
    try:
        _bind(port)
    except OverflowError:
        raise MedsegError(f"port {port} is not between 1 and 65535: use {free_port(PORT)}, which is free") from None
    except OSError as problem:
        reason = "is in use" if problem.errno == errno.EADDRINUSE else f"cannot be used ({problem.strerror})"
        raise MedsegError(f"port {port} {reason}: try --port {free_port(max(port + 1, 1024))}, which is free") from None
    return port


def _bind(port: int) -> None:
    """Listens on a port for a moment.

    Raises:
        OSError: where it cannot be used.
    """
    with socket.create_server((HOST, port)):
        return


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Lets SIGTERM and a closed terminal end this process with its server."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
