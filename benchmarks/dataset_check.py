"""Cases per second of ``medseg check``, how it scales from one process to two, and beside a plain loop.

    python benchmarks/dataset_check.py --data FOLDER [--rounds 5]

The check reads every file of the data set anew, in one process and in two, in turns; of the rounds the fastest counts,
since whatever else the machine does only adds to it. The plain loop is nibabel's, whole arrays in memory: shapes and
affines compared, NaN looked for, label values counted with ``np.unique``, as nnU-Net's integrity check does; it digests
nothing. Processes that only count, and share nothing, are timed likewise: what they gain from a second process is what
the machine had to give, and no program can do better. Results go to benchmarks/results/dataset_check.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from medseg.datasets.checks.run import check_dataset
from medseg.datasets.layouts import DataSet, open_dataset

COUNT = 100_000_000
RESULTS = Path(__file__).parent / "results" / "dataset_check.json"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set of NIfTI files")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = open_dataset(arguments.data)
    ways: dict[str, Callable[[], object]] = {
        "one process": lambda: check_dataset(found, workers=1, fresh=True),
        "two processes": lambda: check_dataset(found, workers=2, fresh=True),
        "from the cache": lambda: check_dataset(found, workers=1),
        "plain loop": lambda: plain(found),
        "counting, one": lambda: count_together(1),
        "counting, two": lambda: count_together(2),
    }
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MEDSEG_CACHE"] = cache
        timed: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                timed[name].append(clocked(way))
    best = {name: min(rounds) for name, rounds in timed.items()}

    from workbench import account, save  # imports PyTorch, beside which processes are started more slowly

    cases = len(found.cases)
    save(
        RESULTS,
        {
            **account(),
            "cases": cases,
            "files": sum(len(case.images) + (case.label is not None) for case in found.cases) + len(found.orphans),
            "rounds": arguments.rounds,
            "cases_per_second": {
                name: round(cases / wall, 1) for name, (wall, _) in best.items() if "counting" not in name
            },
            "processor_seconds": {name: round(processor, 2) for name, (_, processor) in best.items()},
            "two_processes_to_one": round(best["one process"][0] / best["two processes"][0], 2),
            "counting_two_processes_to_one": round(best["counting, one"][0] / best["counting, two"][0], 2),
            "one_process_to_plain_loop": round(best["plain loop"][0] / best["one process"][0], 2),
        },
    )


def clocked(way: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and of the processor, processes that it started included."""
    begun, before = time.perf_counter(), sum(os.times()[:4])
    way()
    return time.perf_counter() - begun, sum(os.times()[:4]) - before


def count_together(processes: int) -> None:
    """Counts to :data:`COUNT`, divided among processes."""
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=count, args=(COUNT // processes,)) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def count(number: int) -> int:
    """The sum of the numbers below."""
    return sum(range(number))


def plain(found: DataSet) -> int:
    """What a script of a few lines would look at; returns how many cases it finds fault with."""
    wrong = 0
    for case in found.cases:
        image = nib.load(case.image)
        voxels = np.asanyarray(image.dataobj)
        fit = bool(np.isfinite(voxels).all())
        if case.label is not None:
            label = nib.load(case.label)
            fit &= label.shape == image.shape and np.allclose(label.affine, image.affine)
            np.unique(np.asanyarray(label.dataobj), return_counts=True)
        wrong += not fit
    return wrong


if __name__ == "__main__":
    main()
