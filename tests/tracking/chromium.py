"""A headless Chromium that tests talk to over a pipe, in the words of the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
READS, WRITES = 3, 4
"""The file descriptors on which Chromium reads commands and writes answers."""


class Browser:
    """One page of a browser; what it complains of is kept in ``problems``, what it asks for in ``requests``."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []

    def open(self, address: str, width: int = 1300, height: int = 1000) -> None:
        """Opens an address in a new page and waits until it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=address)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def enter_frame(self) -> None:
        """Goes on inside the page's one frame, which a sandbox has made a process of its own."""
        while not (frames := [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "iframe"]):
            self.wait("document.querySelector('iframe') !== null")
        self._session = self.send("Target.attachToTarget", targetId=frames[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    @contextmanager
    def in_frame(self) -> Iterator[None]:
        """Inside it, :meth:`enter_frame`; then back at the page, to which keys and the mouse belong."""
        page = self._session
        self.enter_frame()
        try:
            yield
        finally:
            self._session = page

    def run(self, script: str) -> Any:
        """The value of an expression, awaited.

        Raises:
            RuntimeError: where it throws.
        """
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of an expression once it is true; it is asked at every frame."""
        return self.run(
            "new Promise((done, failed) => { let left = 7200; const look = () => {"
            f"const value = (() => {script})(); if (value) done(value); else if (left-- < 0) failed('waited too long');"
            " else requestAnimationFrame(look); }; look(); })"
        )

    def key(self, key: str) -> None:
        """Presses and releases a key, as a keyboard would."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if len(key) == 1 and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def wheel(self, x: float, y: float, by: float) -> None:
        """Turns the wheel over a point."""
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=by)

    def click(self, x: float, y: float) -> None:
        """Clicks a point."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def dark(self) -> None:
        """Prefers dark colours."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def picture(self, path: Path, whole: bool = False) -> None:
        """Writes a PNG of what is seen, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command; its result.

        Raises:
            RuntimeError: where the browser refuses it.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = self._answers.read(1 << 16)
            if not piece:
                raise RuntimeError("the browser has gone")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:200])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own; it ends with the block."""
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"]
    command = [str(CHROMIUM), *options, *quiet, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
    wired = f'exec "$@" {READS}<&{commands_in} {WRITES}>&{answers_out}'
    process = subprocess.Popen(
        ["bash", "-c", wired, "chromium", *command],
        pass_fds=(commands_in, answers_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_in)
    os.close(answers_out)
    shown = Browser(commands_out, answers_in)
    try:
        yield shown
    finally:
        os.close(commands_out)
        process.terminate()
        process.wait()
