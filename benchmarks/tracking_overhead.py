"""What tracking costs: the same training with and without it, in pairs, with a SQLite store and with an MLflow server.

    python benchmarks/tracking_overhead.py [--pairs 5] [--steps 400] [--stores sqlite server] [--results FILE.json]

Both halves of a pair run in this process, one after the other, the first of each pair in turn. Without tracking, the
same values and pictures are made and thrown away. Counted is the loop of training alone, from its first step to its
last; what a run takes to begin and to end is told beside it. The overhead is the median over the pairs of the ratio of
both times, less 1.

What else a machine does may hide so little. So it is counted from within as well, in the tracked halves: the seconds
that the training's thread spends in calls of the run, and the processor's seconds of the threads that deliver and look
at the machine, from begin to end. Together they are the most that the loop can lose, were none of it done beside it;
«at_most» is the median of that part of the loop's seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from medseg.experiment import Experiment
from medseg.files import write_json
from medseg.study import prepare_folder, train
from medseg.tracking import machine
from medseg.tracking.delivery import Delivery
from medseg.tracking.run import Run
from medseg.tracking.store import Store
from medseg.tracking.ui import HOST, free_port, server_environment

CONFIG = """
name: overhead
data: {{root: {root}/cells, phantom: {{kind: cells2d, cases: 8, size: [256, 256]}}, validation: 0.25}}
network: {{name: unet, dims: 2, depth: 3, width: 16, norm: batch}}
training: {{max_steps: {steps}, validations: 4, workers: 0, window: [156], batch: 2, warmup_steps: 0}}
tracking: {{uri: "{store}", review: false, pictures: 2}}
"""


class Nobody:
    """Takes what a run takes, and keeps none of it."""

    def __init__(self) -> None:
        self._pictured: set[str] = set()

    def __enter__(self) -> Nobody:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def machine(self) -> contextlib.AbstractContextManager[None]:
        """Nobody looks at the machine."""
        return contextlib.nullcontext()

    def nothing(self, *_: Any, **__: Any) -> None:
        """Does nothing."""

    log = results = table = picture = artifact = text = dataset = tags = description = nothing

    def pictured(self, path: str) -> bool:
        """Whether a picture came before, as a run says it."""
        known = path in self._pictured
        self._pictured.add(path)
        return known


class Clock:
    """Seconds of the calls of a run by the training's thread, and of the processor in the threads beside it."""

    CALLS = ("log", "results", "table", "picture", "artifact", "text", "dataset", "tags", "description")

    def __init__(self) -> None:
        self.calls = 0.0
        self.beside = 0.0
        self._training = threading.get_ident()
        self._depth = 0

    def call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the run that is clocked where the training's thread calls it, once where it calls another."""

        def clocked(*given: Any, **named: Any) -> Any:
            if threading.get_ident() != self._training or self._depth:
                return method(*given, **named)
            self._depth += 1
            begun = time.perf_counter()
            try:
                return method(*given, **named)
            finally:
                self._depth -= 1
                self.calls += time.perf_counter() - begun

        return clocked

    def thread(self, work: Callable[..., None]) -> Callable[..., None]:
        """What a thread does, with its processor's seconds added at its end."""

        def clocked(*given: Any) -> None:
            try:
                work(*given)
            finally:
                self.beside += time.thread_time()

        return clocked

    @contextlib.contextmanager
    def running(self) -> Iterator[Clock]:
        """Clocks every run that begins in the block."""
        with contextlib.ExitStack() as stack:
            for name in self.CALLS:
                stack.enter_context(mock.patch.object(Run, name, self.call(getattr(Run, name))))
            stack.enter_context(mock.patch.object(Delivery, "_work", self.thread(Delivery._work)))
            stack.enter_context(mock.patch.object(machine, "_look", self.thread(machine._look)))
            yield self


def timed(root: Path, store: str, steps: int, tracked: bool, name: str) -> dict[str, float]:
    """Seconds of the loop, and of what stands around it."""
    config = root / f"{name}.yaml"
    config.write_text(CONFIG.format(root=root, steps=steps, store=store))
    experiment, folder = Experiment.load(config), root / "runs" / name
    prepare_folder(folder, overwrite=True)
    begun = time.perf_counter()
    clock = Clock()
    with clock.running() if tracked else mock.patch.object(Run, "start", lambda *_, **__: Nobody()):
        _, fitted = train(experiment, folder, torch.device("cpu"))
    around = time.perf_counter() - begun - fitted.seconds
    return {"loop": fitted.seconds, "around": around, "calls": clock.calls, "beside": clock.beside}


@contextlib.contextmanager
def server(root: Path) -> Iterator[str]:
    """The address of an MLflow server that keeps the files too."""
    store, port = Store.resolve(f"sqlite:///{root}/server.db"), free_port(5700)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--artifacts-destination", str(root / "files")],
        env=server_environment(store),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    address = f"http://{HOST}:{port}"
    try:
        while True:
            with contextlib.suppress(Exception):
                Store.resolve(address).check()
                break
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def pairs_of(root: Path, store: str, pairs: int, steps: int) -> dict[str, Any]:
    """The pairs, and the overhead that they show."""
    timed(root, store, max(steps // 10, 10), True, "warm")
    found = []
    for number in range(pairs):
        order = (True, False) if number % 2 else (False, True)
        times = {tracked: timed(root, store, steps, tracked, f"{number}-{tracked}") for tracked in order}
        found.append({"without": times[False], "with": times[True]})
        print(f"{store}: {found[-1]}", flush=True)
    ratios = [pair["with"]["loop"] / pair["without"]["loop"] - 1 for pair in found]
    around = [pair["with"]["around"] - pair["without"]["around"] for pair in found]
    most = [(pair["with"]["calls"] + pair["with"]["beside"]) / pair["with"]["loop"] for pair in found]
    return {
        "at_most": statistics.median(most),
        "overhead": statistics.median(ratios),
        "overheads": ratios,
        "seconds_to_begin_and_end": statistics.median(around),
        "pairs": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--stores", nargs="+", choices=["sqlite", "server"], default=["sqlite", "server"])
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results: dict[str, Any] = {"steps": given.steps, "threads": torch.get_num_threads()}
        if "sqlite" in given.stores:
            results["sqlite"] = pairs_of(root, f"sqlite:///{root}/mlflow.db", given.pairs, given.steps)
        if "server" in given.stores:
            with server(root) as address:
                results["server"] = pairs_of(root, address, given.pairs, given.steps)
    for kind in given.stores:
        one = results[kind]
        around = f"begin and end {one['seconds_to_begin_and_end']:+.1f} s"
        print(f"{kind}: {one['overhead']:+.2%}, at most {one['at_most']:.2%} ({around})")
    print(json.dumps({kind: results[kind]["overheads"] for kind in given.stores}))
    if given.results:
        write_json(given.results, results)


if __name__ == "__main__":
    main()
