"""Cases per second of ``medseg prepare``, and how it scales from one process to two.

    python benchmarks/prepare.py [--data FOLDER --labels '{background: 0, a: 1}'] [--cases 24 --side 160] [--rounds 3]

All cases are prepared anew in each round, by one process and by two in turns; of the rounds the fastest counts. Without
``--data`` the cases are phantoms, as many and as large as asked. What the start of two processes takes is told beside.
What the files hold is known before the clock runs, as it is after ``medseg check``. Processes that only count, and
share nothing, are timed likewise: no program can gain more from a second process than they do. Results go to
benchmarks/results/prepare.json, under the data set's name.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from dataset_check import clocked, count_together
from workbench import account, load, save

from medseg.datasets.declared import declared
from medseg.datasets.layouts import open_dataset
from medseg.datasets.phantom import write_phantom
from medseg.preparing.record import prepared_folder, sizes_of
from medseg.preparing.request import Request, requests_of
from medseg.preparing.run import prepare
from medseg.scans.preprocessing import Preprocessing

RESULTS = Path(__file__).parent / "results" / "prepare.json"
VIEWS = Preprocessing(spacing_mm=[1.0, 1.0, 1.0])


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; phantoms where there is none")
    parser.add_argument("--labels", help="what its label files hold, as in a config, where it does not say so itself")
    parser.add_argument("--cases", type=int, default=24, help="phantoms")
    parser.add_argument("--side", type=int, default=160, help="voxels along each axis of a phantom")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MEDSEG_CACHE"] = str(Path(scratch) / "cache")
        root = arguments.data
        if root is None:
            root = write_phantom("organs3d", Path(scratch) / "phantoms", arguments.cases, (arguments.side,) * 3, 0)
        measure(root, arguments.labels, arguments.rounds)


def measure(root: Path, labels: str | None, rounds: int) -> None:
    """Prepares a data set again and again."""
    found = open_dataset(root)
    known = declared(yaml.safe_load(labels)) if labels else found.info.label_map  # type: ignore[union-attr]
    cases = [case for case in found.cases if case.label is not None and all(path.exists() for path in case.images)]
    requests = requests_of(cases, VIEWS, known, "0" * 64)
    timed: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for name, workers in (("one process", 1), ("two processes", 2)):
            timed.setdefault(name, []).append(clocked(lambda n=workers: _anew(requests, n)))  # type: ignore[misc]
            timed.setdefault(f"counting, {name}", []).append(clocked(lambda n=workers: count_together(n)))  # type: ignore[misc]
    best = {name: min(some) for name, some in timed.items()}
    starting = _starting(requests)
    one, two = best["one process"][0], best["two processes"][0]
    result = {
        **account(),
        "cases": len(requests),
        "megabytes_in_memory": round(sum(request.nbytes for request in requests) / 1e6, 1),
        "megabytes_prepared": round(sum(size for _, size in sizes_of(prepared_folder())) / 1e6, 1),
        "rounds": rounds,
        "cases_per_second": {
            "one process": round(len(requests) / one, 2),
            "two processes": round(len(requests) / two, 2),
        },
        "processor_seconds": {name: round(spent, 2) for name, (_, spent) in best.items()},
        "two_processes_to_one": round(one / two, 2),
        "seconds_to_start_two_processes": round(starting, 2),
        "two_processes_to_one_without_their_start": round(one / max(two - starting, 1e-9), 2),
        "counting_two_processes_to_one": round(
            best["counting, one process"][0] / best["counting, two processes"][0], 2
        ),
    }
    save(RESULTS, {**load(RESULTS), found.name: result})


def _anew(requests: Sequence[Request], workers: int) -> None:
    shutil.rmtree(prepared_folder())
    done = prepare(requests, workers)
    assert set(done.values()) == {"made"}


def _starting(requests: Sequence[Request]) -> float:
    """Seconds for two processes that find all done: their start, and a glance at two cases."""
    prepare(requests[:2], 1)
    begun = time.perf_counter()
    prepare(requests[:2], 2)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
