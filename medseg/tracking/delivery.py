"""Bringing values and jobs to the tracking store, beside the training.

One background thread talks to the store, so that a step of training pays for an append and nothing else. A
store that stops answering costs no training: it is said once on stderr, everything waits (within bounds) and
is tried again until the end.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Metric

FLUSH_SECONDS = 3.0
"""The longest that a value waits while the store answers."""

RETRY_SECONDS = 30.0
"""How long a store that did not answer is left alone."""

CLOSE_SECONDS = 120.0
"""How long the end of a run waits for what is still to be delivered."""

BATCH = 500
"""Values in one request; MLflow takes 1000."""

MOST_POINTS = 200_000
MOST_JOBS = 64
"""What may wait: values of the curves, and pictures, tables and files."""

TRY_LATER = (401, 403, 408, 429)
"""Client errors (HTTP) that can pass without anything being wrong with what was sent."""


@dataclass
class _Job:
    what: str
    run: Callable[[], None]
    settled: threading.Event = field(default_factory=threading.Event)


class Delivery:
    """A queue of metric points and jobs, and the thread that delivers them in order.

    Args:
        send: delivers up to ``BATCH`` points; called again with the same points where it raised.
        where: the store's name in warnings.
    """

    def __init__(self, send: Callable[[list[Metric]], None], where: str) -> None:
        self._send = send
        self._where = where
        self._points: deque[Metric] = deque()
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._retry_at: float | None = None
        self._refusals: set[str] = set()
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="medseg-tracking", daemon=True)
        self._thread.start()

    @property
    def answering(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._retry_at is None

    @property
    def waiting(self) -> int:
        """Points and jobs that are not delivered yet."""
        return len(self._points) + len(self._jobs)

    def post(self, points: Sequence[Metric]) -> None:
        """Takes points to be delivered within seconds."""
        with self._changed:
            if self._closing or len(self._points) + len(points) > MOST_POINTS:
                self.lost += len(points)
                return
            self._points.extend(points)
            if len(self._points) >= BATCH:
                self._changed.notify()

    def submit(self, what: str, run: Callable[[], None], wait: bool = False) -> None:
        """Takes a job to be done after everything before it.

        Args:
            what: the job's name in warnings.
            run: the job; done again later where the store did not answer.
            wait: return when it is done, or at once while the store does not answer.
        """
        job = _Job(what, run)
        with self._changed:
            if self._closing:
                self.lost += 1
                return
            if len(self._jobs) >= MOST_JOBS:
                self._jobs[1].settled.set()  # the first may be under way
                del self._jobs[1]
                self.lost += 1
            self._jobs.append(job)
            self._changed.notify()
        if wait and self.answering:
            job.settled.wait()

    def close(self) -> None:
        """Delivers what is left, once and within ``CLOSE_SECONDS``; says what was not."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        if missing := self.lost + self.waiting:
            _warn(f"{missing} values, pictures or files did not reach the tracking store {self._where}")

    def _work(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(self._due, timeout=FLUSH_SECONDS)
                closing = self._closing
            if closing or self.answering or time.monotonic() >= (self._retry_at or 0.0):
                self._deliver()

    def _due(self) -> bool:
        return self._closing or (self.answering and (bool(self._jobs) or len(self._points) >= BATCH))

    def _deliver(self) -> None:
        try:
            while self._points or self._jobs:
                self._deliver_points()
                self._deliver_job()
        except Exception as problem:
            self._pause(problem)
        else:
            self._retry_at = None

    def _deliver_points(self) -> None:
        while self._points:
            with self._changed:
                batch = list(islice(self._points, BATCH))
            self._unless_refused("values", partial(self._send, batch), len(batch))
            with self._changed:
                for _ in batch:
                    self._points.popleft()

    def _deliver_job(self) -> None:
        if not self._jobs:
            return
        job = self._jobs[0]
        self._unless_refused(job.what, job.run, 1)
        with self._changed:
            self._jobs.popleft()
        job.settled.set()

    def _unless_refused(self, what: str, run: Callable[[], None], count: int) -> None:
        """Runs it; what the store will never take is left out and said, anything else is raised."""
        try:
            run()
        except Exception as problem:
            if not _refused(problem):
                raise
            self.lost += count
            if what not in self._refusals:
                self._refusals.add(what)
                _warn(f"the tracking store {self._where} refuses {what}: {_first_line(problem)}")

    def _pause(self, problem: Exception) -> None:
        if self.answering:
            _warn(
                f"the tracking store {self._where} does not answer ({_first_line(problem)}); the run goes on, "
                f"and what is logged is delivered when it answers again"
            )
        self._retry_at = time.monotonic() + RETRY_SECONDS
        with self._changed:
            for job in self._jobs:
                job.settled.set()


def _refused(problem: Exception) -> bool:
    from mlflow.exceptions import MlflowException

    if isinstance(problem, MlflowException):
        status = problem.get_http_status_code()
        return 400 <= status < 500 and status not in TRY_LATER
    if isinstance(problem, OSError):
        return isinstance(problem, FileNotFoundError)
    return isinstance(problem, TypeError | ValueError)


def _first_line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)
