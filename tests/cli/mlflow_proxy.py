"""A proxy before an MLflow server that can be slow, forbid, lose answers, refuse files, or be dead."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"
FILES = "/mlflow-artifacts/"

Behaviour = Callable[[BaseHTTPRequestHandler, int], None]
"""What is done with a request: the request, and how many there were before it."""


class Proxy:
    """The proxy; ``requests`` counts those that are about a run or a file."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests = 0
        self.behaviour: Behaviour = self.forward
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                number = proxy.requests
                proxy.requests += self.path != "/health"
                proxy.behaviour(self, number)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetch(self, request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        """What the server says."""
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        if request.headers.get("Transfer-Encoding") == "chunked":
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        kept = {key: request.headers[key] for key in ("Content-Type",) if key in request.headers}
        connection.request(request.command, request.path, body, kept)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()

    def forward(self, request: BaseHTTPRequestHandler, number: int) -> None:
        say(request, *self.fetch(request))

    def lose_answers_from(self, first: int | None) -> Behaviour:
        """The server does what it is asked to once more, but nobody hears of it; from then on nothing goes through.

        Args:
            first: the number of that request; None for the one that ends the run.
        """
        lost: list[int] = []

        def behave(request: BaseHTTPRequestHandler, number: int) -> None:
            due = request.path.endswith("/runs/update") if first is None else number >= first
            if not lost and not due:
                return self.forward(request, number)
            if not lost and request.path != "/health":
                lost.append(number)
                self.fetch(request)
            return self.die(request, number)

        return behave

    def no_files(self, request: BaseHTTPRequestHandler, number: int) -> None:
        """Takes values, but its disk is full."""
        if request.command == "PUT" and FILES in request.path:
            self.drain(request)
            return say(request, 500, "text/plain", b"[Errno 28] No space left on device")
        return self.forward(request, number)

    def forbid(self, code: int) -> Behaviour:
        """Lets nobody in."""

        def behave(request: BaseHTTPRequestHandler, number: int) -> None:
            self.drain(request)
            say(request, code, "text/plain", b"who are you?")

        return behave

    @staticmethod
    def die(request: BaseHTTPRequestHandler, number: int) -> None:
        """Hangs up."""
        request.close_connection = True

    @staticmethod
    def drain(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length") or 0))


def say(request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
