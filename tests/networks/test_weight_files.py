"""Weights behind a URL: https alone, of the digest that was asked for, kept once."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import build_opener

import pytest

from medseg import MedsegError
from medseg.networks.weight_files import HttpsRedirects, cached, fetch, open_https
from medseg.scans.cache_folder import cache_folder

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Shelf(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/weights.pth")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/weights.pth" else 404)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine, and a cache folder of the test's own."""
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    server = HTTPServer(("127.0.0.1", 0), Shelf)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server, path="/weights.pth"):
    return f"http://127.0.0.1:{server.server_port}{path}"


def open_here(url):
    """As :func:`open_https`, but from this machine's own server, without TLS; redirections are judged as there."""
    assert url.startswith("http://127.0.0.1:")
    return build_opener(HttpsRedirects).open(url, timeout=10)


def test_what_is_fetched_is_kept_under_its_digest(server):
    path = fetch(url(server), DIGEST, open_here)
    assert path == cached(DIGEST)
    assert path.read_bytes() == CONTENT
    assert fetch(url(server), DIGEST, open_here) == path
    assert server.asked == ["/weights.pth"]


def test_a_kept_file_that_was_changed_is_fetched_again(server):
    path = cached(DIGEST)
    path.write_bytes(CONTENT[:-1])
    assert fetch(url(server), DIGEST, open_here).read_bytes() == CONTENT
    assert server.asked == ["/weights.pth"]


def test_another_digest_is_told_with_both_and_nothing_is_kept(server):
    with pytest.raises(MedsegError) as error:
        fetch(url(server), "0" * 64, open_here)
    assert DIGEST in str(error.value)
    assert "0" * 64 in str(error.value)
    assert not list(cache_folder().iterdir())


def test_a_redirection_away_from_https_is_refused(server):
    with pytest.raises(MedsegError, match="redirects to what is not https"):
        fetch(url(server, "/moved"), DIGEST, open_here)
    assert server.asked == ["/moved"]
    assert not list(cache_folder().iterdir())


def test_what_is_not_there_is_one_sentence(server):
    with pytest.raises(MedsegError, match=r"404.*fetch it by hand"):
        fetch(url(server, "/nothing"), DIGEST, open_here)
    with pytest.raises(MedsegError, match=r"refused.*fetch it by hand"):
        fetch("https://127.0.0.1:1/weights.pth", DIGEST)
    assert not list(cache_folder().iterdir())


def test_only_https_is_opened(server, tmp_path):
    (tmp_path / "weights.pth").write_bytes(CONTENT)
    for other in (url(server), (tmp_path / "weights.pth").as_uri(), "ftp://127.0.0.1/w.pth", "data:,weights", "w.pth"):
        with pytest.raises(MedsegError, match="cannot be fetched"):
            fetch(other, DIGEST, open_https)
    assert not server.asked
