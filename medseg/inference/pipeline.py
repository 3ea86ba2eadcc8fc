"""Reading ahead, computing, writing behind: three stages that overlap, with a bounded number of units between them.

reader thread     | read 2 | read 3 | read 4 |
this thread                | compute 2 | compute 3 | compute 4 |
writer thread                          | write 2 | write 3 | write 4 |
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch

from medseg.inference.process_memory import give_back

Unit = TypeVar("Unit")
Taken = TypeVar("Taken", contravariant=True)
Read = TypeVar("Read")
Found = TypeVar("Found")

AHEAD = 2
"""Units that are read before, and written after, the one that is computed, where nobody says."""
SWEEP_SECONDS = 0.25
"""How often the heap's free pages are given back."""


@dataclass
class Stage:
    """What one stage has done so far: seconds that it was busy, bytes that went through it."""

    seconds: float = 0.0
    bytes: int = 0

    def add(self, seconds: float, bytes: int) -> None:
        """Notes one more unit."""
        self.seconds += seconds
        self.bytes += bytes


@dataclass
class Progress:
    """How far a segmentation is: what a bar shows, and where the time went.

    Attributes:
        tiles: in all.
        done: of them, those of an earlier start included.
        before: of them, those of an earlier start.
        voxels: of the scan, as far as they are wanted.
        read: windows, as the network takes them.
        network: the forward passes alone.
        write: decisions, interpolation back and labels.
        loop_seconds: from the first read to the last write.
    """

    tiles: int
    done: int = 0
    before: int = 0
    voxels: int = 0
    read: Stage = field(default_factory=Stage)
    network: Stage = field(default_factory=Stage)
    write: Stage = field(default_factory=Stage)
    loop_seconds: float = 0.0

    @property
    def voxels_per_second(self) -> float:
        """Of this start, so far."""
        share = (self.done - self.before) / max(self.tiles, 1)
        return share * self.voxels / self.loop_seconds if self.loop_seconds else 0.0


class Clock:
    """Times what a device does, without making the host wait for it.

    A GPU works off its queue behind the host's back: :meth:`mark` notes how far the queue goes, :meth:`wait` returns
    when the device has come so far.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def __enter__(self) -> Clock:
        self._begun = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self._now()

    def mark(self) -> Clock:
        """Notes the end of what is queued."""
        self._mark = self._now()
        return self

    def wait(self) -> None:
        """Returns when the device has come to the mark; at once on the CPU, which queues nothing."""
        if not isinstance(self._mark, float):
            self._mark.synchronize()

    def seconds(self) -> float:
        """Between entering and leaving; waits for a device that has not come so far."""
        if isinstance(self._begun, float) or isinstance(self._ended, float):
            return self._ended - self._begun  # type: ignore[operator]
        self._ended.synchronize()
        return float(self._begun.elapsed_time(self._ended)) / 1000

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


Report = Callable[[Progress], None]


class Stages(Protocol[Taken, Read, Found]):
    """What becomes of a unit, stage by stage, and how far all of them are."""

    progress: Progress

    def read(self, unit: Taken, /) -> Read:
        """In the reader's thread."""

    def compute(self, unit: Taken, values: Read, /) -> Found:
        """In the caller's thread."""

    def write(self, unit: Taken, found: Found, /) -> None:
        """In the writer's thread."""

    def tiles(self, unit: Taken, /) -> int:
        """How many tiles a unit stands for."""


def run(stages: Stages[Unit, Read, Found], units: Iterable[Unit], ahead: int, report: Report | None) -> Progress:
    """Takes units through their stages, ``report`` being called after each; returns the progress at the end."""
    progress, begun, swept = stages.progress, time.perf_counter(), 0.0
    with torch.inference_mode():
        for unit in flow(units, stages.read, stages.compute, stages.write, ahead):
            progress.done += stages.tiles(unit)
            progress.loop_seconds = now = time.perf_counter() - begun
            if now > swept + SWEEP_SECONDS:
                give_back()
                swept = now
            if report is not None:
                report(progress)
    progress.loop_seconds = time.perf_counter() - begun
    return progress


def flow(
    units: Iterable[Unit],
    read: Callable[[Unit], Read],
    compute: Callable[[Unit, Read], Found],
    write: Callable[[Unit, Found], None],
    ahead: int = AHEAD,
) -> Iterator[Unit]:
    """Takes units through the three stages, in order; yields each once it is computed, and ends when all are written.

    ``compute`` runs in the caller's thread, ``read`` and ``write`` in one thread each. At most ``ahead`` units wait
    between two stages. An error of any stage is raised here.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        writes: deque[Future[None]] = deque()
        try:
            for unit, values in _read_ahead(reader, read, units, ahead):
                writes.append(writer.submit(write, unit, compute(unit, values)))
                del values
                while len(writes) > ahead or (writes and writes[0].done()):
                    writes.popleft().result()
                yield unit
            for pending in writes:
                pending.result()
        finally:
            for pending in writes:
                pending.cancel()


def _read_ahead(
    reader: ThreadPoolExecutor, read: Callable[[Unit], Read], units: Iterable[Unit], ahead: int
) -> Iterator[tuple[Unit, Read]]:
    waiting: deque[tuple[Unit, Future[Read]]] = deque()
    try:
        for unit in units:
            waiting.append((unit, reader.submit(read, unit)))
            if len(waiting) > ahead:
                first, values = waiting.popleft()
                yield first, values.result()
        while waiting:
            first, values = waiting.popleft()
            yield first, values.result()
    finally:
        for _, values in waiting:
            values.cancel()
