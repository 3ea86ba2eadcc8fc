"""MLflow's UI: on this machine alone, silent to the outside, ended with the command that began it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import medseg
from medseg.errors import MedsegError
from medseg.tracking import Run, Store, served, ui
from medseg.tracking import store as store_module
from medseg.tracking.ui import HOST, free_port, serve, server_command, server_environment

SERVING = """
import signal, sys
from medseg.tracking import Store
from medseg.tracking.ui import serve
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    serve(Store.resolve(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""

STAND_IN = 'lambda store, port: ["sh", "-c", f"{sys.executable} -m http.server {port} --bind 127.0.0.1 & wait"]'
"""A server that is the child of a child, as MLflow's is."""


@pytest.fixture
def server(store: Store, guarded: tuple[dict[str, str], Path]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    Run.start(store, "shown", "the last run", {}).finish()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVING, store.uri], env=guarded[0], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.wait()


def ask(url: str, body: bytes | None = None, **headers: str) -> bytes:
    headers = {"Content-Type": "application/json", **headers}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        content: bytes = answer.read()
    return content


def test_the_ui_serves_this_machine_and_tells_nobody(
    store: Store,
    server: tuple[str, subprocess.Popen[str]],
    guarded: tuple[dict[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    last = store.client().get_experiment_by_name("shown").experiment_id
    page, process = server
    url, _, place = page.partition("/#/")
    port = int(url.rpartition(":")[2])
    assert url == f"http://{HOST}:{port}" and place == f"experiments/{last}/runs?viewStateShareKey=medseg"
    assert b"<title>MLflow</title>" in ask(url)
    telemetry = f"{url}/ajax-api/3.0/mlflow/ui-telemetry"
    assert json.loads(ask(telemetry))["disable_ui_telemetry"] is True
    assert json.loads(ask(telemetry, b'{"records": [{}]}'))["status"] == "disabled"
    for stranger in ("evil.example", f"192.168.1.2:{port}", f"127.0.0.1.evil.example:{port}"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(url, Host=stranger)
    assert b"<title>MLflow</title>" in ask(url, Host="localhost:8888"), "a forwarded port"
    for question, body in (("config", None), ("providers", None), ("message", b'{"message": "hello"}')):
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            ask(f"{url}{served.ASSISTANT}/{question}", body)
        assert refused.value.read().decode() == served.REFUSAL
    assert served.HEAD.encode() in ask(url)
    with pytest.raises(MedsegError, match=rf"port {port} is in use: try --port \d+, which is free"):
        serve(store, port)
    capsys.readouterr()

    serve(Store.resolve(url))
    assert capsys.readouterr().out == f"{page}\n"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = Run.start(Store.resolve(url), "served", "over http", {"a": 1}, folder=tmp_path / "run")
    run.log({"train/loss": 1.0}, 1)
    run.artifact(Path(__file__), "config")
    while run._courier.waiting:
        run._delivery._thread.join(0.01)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"{url}/no-such-page")
    assert [m.value for m in store.client().get_metric_history(run.id, "train/loss")] == [1.0]

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    with socket.create_server((HOST, port)):
        pass
    assert guarded[1].read_text() == ""

    run.log({"train/loss": 0.5}, 2)
    run.finish()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "does not answer" in said[0] and f"medseg sync {tmp_path / 'run'}" in said[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_its_children(store: Store, number: signal.Signals) -> None:
    store.client()
    code = f"import sys; from medseg.tracking import ui; ui.server_command = {STAND_IN}\n{SERVING}"
    root = str(Path(medseg.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", code, store.uri],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    url = process.stdout.readline().strip()
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    with socket.create_server((HOST, int(url.rpartition(":")[2]))):
        pass


def test_a_server_that_does_not_start_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.client()
    monkeypatch.setattr(ui, "server_command", lambda store, port: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(MedsegError, match=r"did not start on port \d+ \(exit code 3\)"):
        serve(store)


@pytest.fixture
def copied(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the store's file, for which no server may be started."""
    store.client()
    assert store.database
    monkeypatch.setattr(ui, "server_command", lambda store, port: pytest.fail("a server is started"))
    return Path(shutil.copyfile(store.database, tmp_path / "copy.db"))


def test_a_store_of_another_schema_is_one_sentence_before_a_server_starts(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(copied)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    with pytest.raises(MedsegError, match=r"copy\.db has another schema.*found version ffffffffffff"):
        serve(Store.resolve(f"sqlite:///{copied}"))
    assert capfd.readouterr() == ("", "")


def test_a_locked_store_is_one_sentence_before_a_server_starts(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(copied, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(MedsegError, match="cannot be opened: database is locked"):
            serve(Store.resolve(f"sqlite:///{copied}"))
    assert capfd.readouterr() == ("", "")


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="no tracking store at"):
        serve(Store.resolve("sqlite:///mlflow.db", tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_be_is_one_sentence(store: Store, port: int) -> None:
    store.client()
    with pytest.raises(MedsegError, match=f"port {port} .*which is free"):
        serve(store, port)


def test_the_free_port_is_the_first_that_is_free() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) > port or free_port(port) < 1024 or port == 65535


def test_the_server_listens_here_alone_and_its_address_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", "*")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    store = Store.resolve("postgresql://me:secret@host/db")
    command, environment = server_command(store, 5000), server_environment(store)
    assert command[command.index("--host") + 1] == HOST
    assert not any("secret" in argument for argument in command)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == store.uri
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in environment
    hosts = command[command.index("--allowed-hosts") + 1].split(",")
    assert {host.removesuffix(":*") for host in hosts} == {HOST, "localhost"}
