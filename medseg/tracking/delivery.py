"""Delivering a run's log beside its training: one thread, which the training never waits for.

A store that stops answering, fills up or lets nobody in costs no training: it is said once on stderr, all of it
stays in the run's folder, and it is tried again until the end.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from medseg.errors import MedsegError
from medseg.tracking.courier import Courier
from medseg.tracking.store import Unreachable, denied, reason_of

FLUSH_SECONDS = 5.0
"""How long a value waits at the most while the store answers."""

RETRY_SECONDS = 30.0
"""How long a store that did not answer is left alone."""

REASON = 400
"""How much of a reason is said, in characters."""

CLOSE_SECONDS = 60.0
"""How long the end of a run waits for what is still to be delivered."""


class Delivery:
    """The thread that has a courier go, again and again.

    Args:
        courier: between the run's spool and the store.
        trouble: why the store does not answer already; None where it does.
    """

    def __init__(self, courier: Courier, trouble: Exception | None = None) -> None:
        self._courier = courier
        self._closing = threading.Event()
        self._told = False
        self._retry_at = {"values": 0.0, "files": 0.0}
        if trouble is not None:
            self._pause("values", trouble)
        self._thread = threading.Thread(target=self._work, name="medseg-tracking", daemon=True)
        self._thread.start()

    @property
    def answering(self) -> bool:
        """Whether the store took values when it was last asked."""
        return self._retry_at["values"] == 0.0

    def close(self) -> bool:
        """Delivers what is left, within ``CLOSE_SECONDS``; whether all of it was delivered, and is said where not."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)
        done = not self._thread.is_alive() and not self._courier.waiting
        if not done:
            self._tell(f"takes more than {CLOSE_SECONDS:.0f} seconds for what is left")
        return done

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(FLUSH_SECONDS)
            self._attempt(closing)

    def _attempt(self, closing: bool) -> None:
        lanes: dict[str, Callable[[], None]] = {"values": self._courier.values, "files": self._courier.files}
        for name, deliver in lanes.items():
            if time.monotonic() < self._retry_at[name] and not closing:
                return
            try:
                if self._retry_at[name]:
                    self._courier.store.check()  # which takes seconds, where a request may take a minute
                deliver()
                self._retry_at[name] = 0.0
            except Exception as problem:
                self._pause(name, problem)
                return
        if self._courier.refused and not self._told:
            self._told = True
            store, folder = self._courier.store.shown, self._courier.spool.folder
            warn(f"the tracking store {store} refuses {self._courier.refused[0]}; the run goes on, {folder} keeps it")

    def _pause(self, lane: str, problem: BaseException) -> None:
        self._retry_at[lane] = time.monotonic() + RETRY_SECONDS
        cause = problem.__cause__ if isinstance(problem, Unreachable) and problem.__cause__ else problem
        answers = denied(cause) or (isinstance(cause, MedsegError) and not isinstance(cause, Unreachable))
        verb = "takes no files" if lane == "files" else "takes nothing" if answers else "does not answer"
        self._tell(f"{verb} ({reason_of(cause)[:REASON]})")

    def _tell(self, what: str) -> None:
        if self._told:
            return
        self._told = True
        store, folder = self._courier.store.shown, self._courier.spool.run_folder
        warn(
            f"the tracking store {store} {what}; the run goes on, and all of it is kept in "
            f"{self._courier.spool.folder}: it is delivered when the store takes it again, or by medseg sync {folder}"
        )


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
