"""Addresses where a model is asked for: fetched once, checked every time, and sentences for what is not there."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from small_packages import write_model

from medseg.addresses import Fetched
from medseg.errors import MedsegError
from medseg.files import read_json, write_json
from medseg.package import MODEL, WEIGHTS, find_package
from medseg.registry import fetch as fetch_module
from medseg.registry.fetch import DIGEST, fetch, package_digest
from medseg.registry.register import Candidate, Registered, register
from medseg.tracking.store import Store


@pytest.mark.parametrize("address", ["models:/cells@champion", "models:/cells/1", "models:/cells/latest"])
def test_an_address_is_a_package(address: str, registered: Registered, default: Store, run: Path) -> None:
    folder = find_package(Path(address))
    assert sorted(file.name for file in folder.iterdir()) == [MODEL, WEIGHTS]
    for name in (MODEL, WEIGHTS):
        assert (folder / name).read_bytes() == (run / "model" / name).read_bytes()


def test_it_is_fetched_once_and_again_where_it_was_damaged(
    registered: Registered, default: Store, fresh_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fetch("models:/cells@champion").folder
    assert folder.parent == fresh_cache / "models"
    assert "fetching models:/cells/1" in capsys.readouterr().err
    assert fetch("models:/cells/1").folder == folder
    assert capsys.readouterr().err == ""
    (folder / WEIGHTS).write_bytes(b"damaged")
    assert fetch("models:/cells/1").folder == folder
    assert "fetching" in capsys.readouterr().err
    assert package_digest(folder) == folder.name
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("models:/cels@champion", r"no model 'cels' is registered .*; did you mean 'cells'"),
        ("models:/cells@champon", r"no alias 'champon'; did you mean 'champion'\?; it has champion \(version 1\)"),
        ("models:/cells/9", r"models:/cells/9 is not there: cells has the versions 1"),
        ("models:/cells", "write models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_told_what_is(address: str, said: str, registered: Registered, default: Store) -> None:
    with pytest.raises(MedsegError, match=said):
        find_package(Path(address))


def test_an_address_says_which_version_it_meant_and_which_package(
    registered: Registered, default: Store, run: Path, fresh_cache: Path
) -> None:
    digest = package_digest(run / "model")
    for address in ("models:/cells@champion", "models:/cells/latest", "models:/cells/1"):
        assert fetch(address) == Fetched(address, "models:/cells/1", digest, fresh_cache / "models" / digest)


def test_a_package_of_a_known_digest_needs_no_store_once_it_is_here(
    registered: Registered, default: Store, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fetch("models:/cells@champion")
    with pytest.raises(MedsegError, match=r"is not the package that is meant \(digest .*MLFLOW_TRACKING_URI"):
        fetch("models:/cells/1", "0" * 64)
    with pytest.raises(MedsegError, match="is not the package that is meant"):
        fetch("models:/cells/1", f"../models/{found.digest}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fresh_cache / 'none.db'}")
    assert fetch("models:/cells/1", found.digest).folder == found.folder
    (found.folder / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(MedsegError, match="there is no tracking store at"):
        fetch("models:/cells/1", found.digest)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(MedsegError, match="there is no tracking store at"):
        fetch("models:/cells@champion")
    assert not (tmp_path / "none.db").exists()


def test_a_version_that_is_not_medsegs_is_refused(default: Store, tmp_path: Path) -> None:
    client = default.client()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", (tmp_path / "pickle").as_uri())
    with pytest.raises(MedsegError, match="was not registered by medseg"):
        fetch("models:/foreign/1")


def test_what_was_changed_in_the_store_is_not_taken(default: Store, tmp_path: Path, fresh_cache: Path) -> None:
    register(Candidate(write_model(tmp_path / "a"), default), "changed")
    version = default.client().get_model_version("changed", "1")
    card = Path(version.source.removeprefix("file://").replace("%20", " ")) / "data" / "model" / MODEL
    write_json(card, {**read_json(card, "the card"), "activation": "softmax"})
    with pytest.raises(MedsegError, match="is not the package that was registered"):
        fetch("models:/changed/1")
    assert list((fresh_cache / "models").iterdir()) == []


def test_a_digest_is_no_way_out_of_the_cache(default: Store, tmp_path: Path, fresh_cache: Path) -> None:
    register(Candidate(write_model(tmp_path / "a"), default), "escaping")
    default.client().set_model_version_tag("escaping", "1", DIGEST, "../../escaped")
    with pytest.raises(MedsegError, match="was not registered by medseg"):
        fetch("models:/escaping/1")


def test_another_process_may_be_faster(
    registered: Registered, default: Store, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch("models:/cells/1").folder
    kept = shutil.move(folder, fresh_cache / "kept")

    def rename(source: Path, target: Path) -> None:
        shutil.copytree(kept, target)
        raise OSError("Directory not empty")

    with monkeypatch.context() as patch:
        patch.setattr(fetch_module.os, "rename", rename)
        assert fetch("models:/cells/1").folder == folder


class Forbidding(BaseHTTPRequestHandler):
    """A server that knows who asks and gives nothing."""

    def do_GET(self) -> None:
        healthy = self.path == "/health"
        body = b"OK" if healthy else b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'
        self.send_response(200 if healthy else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_without_permission_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(MedsegError, match=r"does not let you have models:/cells.*MLFLOW_TRACKING_USERNAME"):
            fetch("models:/cells@champion")
        server.shutdown()
