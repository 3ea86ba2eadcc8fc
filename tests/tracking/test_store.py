"""Which store is taken, from anywhere, and what is said of one that cannot be used."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import medseg
from medseg.errors import MedsegError
from medseg.quiet import quiet_environment, quiet_mlflow
from medseg.tracking import store as store_module
from medseg.tracking.store import Store, Unreachable, reason_of


@pytest.fixture(autouse=True)
def _no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_config_comes_before_environment_comes_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store.resolve().database == tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///env.db")
    assert Store.resolve().database == tmp_path / "env.db"
    assert Store.resolve("sqlite:///config.db").database == tmp_path / "config.db"


def test_a_sqlite_store_is_absolute_and_its_artifacts_lie_beside_it(tmp_path: Path) -> None:
    relative = Store.resolve("sqlite:///sub/../runs/x.db", tmp_path)
    assert relative.database == tmp_path / "runs" / "x.db"
    assert relative.artifacts == tmp_path / "runs" / "mlartifacts"
    assert Store.resolve(relative.uri, Path("/")) == relative
    assert not relative.remote


@pytest.mark.parametrize("name", ["a b", "100%", "what?", "é#1", "a%20b"])
def test_odd_folders_come_through_sqlalchemy(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    resolved = Store._of_file(tmp_path / name / "m.db")
    assert make_url(resolved.uri).database == str(tmp_path / name / "m.db")
    assert Store.resolve(resolved.uri) == resolved


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "./mlruns", "/tmp/x", "file:mlruns"])
def test_a_folder_is_refused_with_what_to_write_instead(uri: str) -> None:
    with pytest.raises(MedsegError, match=r"refuse the file store.*sqlite:///mlflow\.db"):
        Store.resolve(uri)


@pytest.mark.parametrize("uri", ["ftp://x/y", "databricks://p", "s3://bucket"])
def test_unknown_kinds_are_refused(uri: str) -> None:
    with pytest.raises(MedsegError, match="of no kind that medseg knows"):
        Store.resolve(uri)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_a_store_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(MedsegError, match="names no file"):
        Store.resolve(uri)


def test_passwords_are_not_shown() -> None:
    server = Store.resolve("https://me:secret@host:8443/")
    assert server.remote and server.artifacts is None
    assert server.shown == "https://host:8443"
    assert Store.resolve("postgresql+psycopg2://me:secret@host/db").shown == "postgresql+psycopg2://host/db"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:pa%2Fs%40s@host:80", "http://host:80"),
        ("http://me@corp:pass@host", "http://host"),
        ("postgresql://me:pa/s?s@host/db", "postgresql://host/db"),
        ("postgresql://me:pa@ss@host/db", "postgresql://host/db"),
        ("postgresql://host/db?sslmode=on&password=pass", "postgresql://host/db?sslmode=on"),
        ("mysql+pymysql://host/db?passwd=pass", "mysql+pymysql://host/db"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dpass", "mssql+pyodbc:///"),
    ],
)
def test_odd_passwords_are_not_shown_either(uri: str, shown: str) -> None:
    assert Store.resolve(uri).shown == shown


def test_a_folder_of_a_store_is_no_user(tmp_path: Path) -> None:
    store = Store._of_file(Path("/me@work/x.db"))
    assert store.shown == store.uri


@pytest.mark.parametrize("word", ["pa/ss", "12/ss", "pa?ss", "pa#ss", "12/s@s"])
def test_an_address_that_cannot_be_read_is_not_repeated(word: str) -> None:
    with pytest.raises(MedsegError, match=r"cannot be read.*/ as %2F") as refused:
        Store.resolve(f"http://me:{word}@host")
    assert word not in str(refused.value) and "ss@" not in str(refused.value)
    with pytest.raises(MedsegError, match="of no kind") as refused:
        Store.resolve(f"htp://me:{word}@host")
    assert word not in str(refused.value)


class Guarded(BaseHTTPRequestHandler):
    """A server that lets in whoever knows a user and a password, and says 401, or 403, to all others."""

    pair = "mé:pa:s/s@"
    refusal = 401

    def do_GET(self) -> None:
        word = base64.b64encode(self.pair.encode()).decode()
        known = self.headers["Authorization"] == f"Basic {word}"
        self.send_response(200 if known else self.refusal)
        self.end_headers()
        self.wfile.write(b"OK" if known else b"<html>who are you?</html>")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(params=[401, 403])
def guarded_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Its host with the port, and its refusal."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(Guarded, "refusal", request.param)
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", request.param
        server.shutdown()


def test_the_user_and_password_of_the_address_open_the_server(guarded_server: tuple[str, int]) -> None:
    host, refusal = guarded_server
    Store.resolve(f"http://m%C3%A9:pa%3As%2Fs%40@{host}/").check()
    with pytest.raises(
        Unreachable, match=rf"http://{host} lets nobody in.*\({refusal}\).*MLFLOW_TRACKING_URI"
    ) as refused:
        Store.resolve(f"http://me:secret@{host}").client()
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_who_gives_no_password_is_told_that_one_is_wanted(guarded_server: tuple[str, int]) -> None:
    host, refusal = guarded_server
    store = Store.resolve(f"http://{host}")
    with pytest.raises(Unreachable, match=rf"http://{host} .*\({refusal}\).*MLFLOW_TRACKING_PASSWORD") as refused:
        store.experiment(store.client(), "any")
    assert "who are you" not in str(refused.value)


def test_a_reason_holds_no_password() -> None:
    said = reason_of(OSError("API request to http://me:s@cr/et@host/api failed, and http://me:secret@host too"))
    assert said == "API request to http://host/api failed, and http://host too"


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MedsegError, match=rf"127\.0\.0\.1:{port} does not answer"):
        Store.resolve(f"http://127.0.0.1:{port}").client()


def test_a_server_that_never_answers_is_left_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MedsegError, match="does not answer"):
            Store.resolve(address).client()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("these are not the bytes of a database" * 50)
    with pytest.raises(MedsegError, match="cannot be opened: file is not a database"):
        Store.resolve("sqlite:///x.db", tmp_path).client()
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(MedsegError, match="cannot be opened"):
        Store.resolve("sqlite:///folder.db", tmp_path).client()


def test_the_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(MedsegError, match="not MLflow's"):
        Store.resolve("sqlite:///x.db", tmp_path).client()
    assert (tmp_path / "x.db").read_bytes() == before


def test_a_locked_store_is_one_sentence(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.05)
    store.client()
    assert store.database
    copy = tmp_path / "locked.db"
    copy.write_bytes(store.database.read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(MedsegError, match="cannot be opened: database is locked"):
            Store.resolve(f"sqlite:///{copy}").client()
        connection.rollback()
    Store.resolve(f"sqlite:///{copy}").check()


def test_a_server_that_is_not_mlflows_is_one_sentence(tmp_path: Path) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = Store.resolve(f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(MedsegError, match=r"is no MLflow server .404"):
            store.check()
        (tmp_path / "health").write_text("<html>welcome</html>")
        with pytest.raises(MedsegError, match=r"is no MLflow server .no OK at /health"):
            store.check()
        server.shutdown()


def test_a_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/db")
    assert Store.resolve("postgresql://host/db").uri == "postgresql://me:secret@host/db"
    assert Store.resolve("postgresql://other/db").uri == "postgresql://other/db"


def test_a_newer_schema_is_one_sentence(store: Store, tmp_path: Path) -> None:
    store.client()
    assert store.database
    copy = tmp_path / "newer.db"
    copy.write_bytes(store.database.read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")
    with pytest.raises(MedsegError, match=r"another schema.*found version of_tomorrow.*upgrade MLflow"):
        Store.resolve(f"sqlite:///{copy}").client()


def test_experiments_are_made_once_and_a_deleted_one_is_refused(store: Store) -> None:
    client = store.client()
    first = store.experiment(client, "../once more")
    assert store.experiment(client, "../once more") == first
    assert store.artifacts
    location = client.get_experiment(first).artifact_location
    assert location == (store.artifacts / "once_more").as_uri()
    client.delete_experiment(first)
    with pytest.raises(MedsegError, match="was deleted"):
        store.experiment(client, "../once more")


def test_the_default_experiment_keeps_its_artifacts_beside_the_store_too(store: Store) -> None:
    client = store.client()
    assert store.artifacts
    found = client.get_experiment(store.experiment(client, "Default"))
    assert found.artifact_location.startswith(store.artifacts.as_uri())


def test_artifacts_that_only_a_server_keeps_are_refused_without_it(store: Store) -> None:
    client = store.client()
    client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(MedsegError, match="http:// address"):
        store.experiment(client, "served")


def test_telemetry_is_off_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.setenv("_MLFLOW_TESTING_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    environment = quiet_environment()
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "true"
    assert "_MLFLOW_TESTING_TELEMETRY" not in environment
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    quiet_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert "_MLFLOW_TESTING_TELEMETRY" not in os.environ


def test_importing_tracking_imports_no_mlflow() -> None:
    code = "import sys, medseg.tracking, medseg.tracking.ui; sys.exit('mlflow' in sys.modules)"
    root = str(Path(medseg.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
