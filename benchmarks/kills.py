"""Kills at random moments: does ``medseg infer``, started again, end with the bytes of a run that nobody disturbed?

    python benchmarks/kills.py [--kills 60] [--seed 0]

For each way through a scan (tiles into .tif, .nii.gz and .ome.zarr, with probabilities, with --workers 2, and sliding
windows) one run is left alone. Then runs are started and killed by SIGKILL at moments drawn from a seed, from the
first sign of the job on (its lock) to its end; a quarter waits for the last tile first, so that closing is hit too. A
killed run is started again and killed again, until one completes; then the next output is begun. Kills that hit a
process when its mask was complete and its journal gone are no kills. Counted are

    differing_bytes   of the final masks and probabilities (for Zarr: of all files) against the undisturbed run's
    lost_tiles        tiles (of sliding windows: slabs) that the journal held at a kill and that were computed again,
                      or that the next start did not take up
    left_behind       hidden files beside a mask that is complete

While a first process is stopped (SIGSTOP), a second one is started on its output and must refuse. Results go to
benchmarks/results/kills.json. Small: --kills 6 --results /tmp/kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
import torch
import zarr
from workbench import MEDSEG, RESULTS, account, random_network, save, scratch, smooth_noise, write_model

from medseg.inference.journal import Journal, journal_of
from medseg.scans.preprocessing import Preprocessing

SPEC_2D = {"name": "unet", "dims": 2, "depth": 2, "width": 8, "in_channels": 1, "out_channels": 2}
SPEC_3D = {"name": "unet", "dims": 3, "depth": 1, "width": 4, "in_channels": 1, "out_channels": 2}
CLOSING_SHARE = 0.25
LOOK_SECONDS = 0.002


@dataclass(frozen=True)
class Way:
    """One way through a scan: the model, the scan, the mask's name, and options."""

    name: str
    model: str
    scan: str
    mask: str
    options: tuple[str, ...]

    def command(self, folder: Path, out: Path) -> list[str]:
        """The command line of a run."""
        scan, model = folder / self.scan, folder / self.model
        fixed = ["--threads", "1", "--device", "cpu", "--json"]
        return [*MEDSEG, "infer", "-m", str(model), str(scan), "-o", str(out), *self.options, *fixed]


TILES_2D = ("--tile-overlap", "--tile", "168", "--batch", "2")
TILES_3D = ("--tile-overlap", "--tile", "56", "--batch", "2")
WINDOWS_3D = ("--sliding-window", "--roi", "32", "--overlap", "0.5", "--batch", "4")
WAYS = (
    Way("tiles to .tif", "valid2d", "scan.tif", "scan.tif", TILES_2D),
    Way("tiles to .nii.gz", "valid3d", "scan.nii.gz", "scan.nii.gz", TILES_3D),
    Way("tiles to .ome.zarr", "valid3d", "scan.zarr", "scan.ome.zarr", TILES_3D),
    Way("tiles to .tif, probabilities", "valid2d", "scan.tif", "scan.tif", (*TILES_2D, "--probabilities")),
    Way("tiles to .ome.zarr, 2 workers", "valid3d", "scan.zarr", "scan.ome.zarr", (*TILES_3D, "--workers", "2")),
    Way("sliding windows to .nii.gz", "padded3d", "scan.nii.gz", "scan.nii.gz", WINDOWS_3D),
    Way("sliding windows to .ome.zarr", "padded3d", "scan.zarr", "scan.ome.zarr", WINDOWS_3D),
)


@dataclass
class Tally:
    """What one way came to."""

    kills: Counter = field(default_factory=Counter)
    killed_when_over: int = 0
    outputs: int = 0
    differing_bytes: int = 0
    lost_tiles: int = 0
    left_behind: int = 0
    second_start: str = ""

    def row(self) -> dict[str, Any]:
        """For the results."""
        return {**vars(self), "kills": sum(self.kills.values()), "killed_while": dict(self.kills)}


def make_inputs(folder: Path, side_2d: int, side_3d: int) -> None:
    """Scans and models."""
    tifffile.imwrite(folder / "scan.tif", smooth_noise((side_2d,) * 2, 0), tile=(256, 256), compression="zlib")
    volume = smooth_noise((side_3d,) * 3, 1)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "scan.nii.gz")
    zarr.create_array(folder / "scan.zarr", shape=volume.shape, chunks=(32,) * 3, dtype="uint8")[:] = volume
    for name, spec in (("valid2d", SPEC_2D), ("valid3d", SPEC_3D), ("padded3d", {**SPEC_3D, "padding": "same"})):
        write_model(folder / name, random_network(spec), spec, Preprocessing())


class Undisturbed:
    """A run that is left alone: what it wrote, and how long its parts took."""

    def __init__(self, way: Way, folder: Path) -> None:
        self.out = folder / "undisturbed"
        process = start(way.command(folder, self.out))
        wait_for(process, lambda: lock_of(self.out / way.mask).exists())
        begun = time.perf_counter()
        wait_for(process, lambda: Journal.is_complete(journal_of(self.out / way.mask)))
        completed = time.perf_counter()
        self.recorded = len(recorded(journal_of(self.out / way.mask)))
        wait_for(process, lambda: not journal_of(self.out / way.mask).exists())
        ended = time.perf_counter()
        finish(process)
        self.tiles_seconds = completed - begun
        self.closing_seconds = ended - completed
        self.bytes = bytes_of(self.out)


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict[str, Any]:
    """The account of a run that must succeed.

    Raises:
        RuntimeError: where it fails.
    """
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args}: exit code {process.returncode}: {err}")
    return json.loads(out)["scans"][0]


def wait_for(process: subprocess.Popen, happened: Any) -> bool:
    """Returns once something has happened, or False once the process has ended without it."""
    while not happened():
        if process.poll() is not None:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def lock_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


def bytes_of(out: Path) -> dict[str, bytes]:
    """The masks' files below a folder, without what tells of the run (report.json, inference.json)."""
    files = [p for p in out.rglob("*") if p.is_file()]
    kept = [p for p in files if p.parent != out or p.suffix != ".json"]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


def differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> int:
    """How many bytes differ, those of files that only one has included."""
    return sum(_differing(found.get(name, b""), wanted.get(name, b"")) for name in {*found, *wanted})


def _differing(one: bytes, other: bytes) -> int:
    n = min(len(one), len(other))
    common = np.count_nonzero(np.frombuffer(one, np.uint8, n) != np.frombuffer(other, np.uint8, n))
    return int(common) + max(len(one), len(other)) - n


def recorded(journal: Path) -> list[int]:
    """What a journal holds, with what it holds twice."""
    lines = journal.read_text().split("\n")[1:-1] if journal.exists() else []
    return [number for line in lines for number in _numbers(line)]


def _numbers(line: str) -> Iterator[int]:
    try:
        content = json.loads(line)
    except ValueError:  # cut short by a kill
        return
    if isinstance(content, list):
        yield from content


def kill(process: subprocess.Popen, output: Path, delay: float, closing: bool) -> bool:
    """Kills a run after its first sign, or its last tile, and a delay; False where it was done before."""
    signs = (lambda: Journal.is_complete(journal_of(output))) if closing else (lambda: lock_of(output).exists())
    if not wait_for(process, signs):
        return False
    until = time.perf_counter() + delay
    while time.perf_counter() < until and process.poll() is None:
        time.sleep(LOOK_SECONDS)
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def stage_of(output: Path) -> str:
    """What a killed job was at, by what it has left; ``over`` is after the mask's completion."""
    journal = journal_of(output)
    if not journal.exists():
        return "over" if output.exists() else "opening"
    if output.exists():
        return "publishing"
    if Journal.is_complete(journal):
        return "closing"
    return "tiles" if recorded(journal) else "opening"


def one_output(way: Way, folder: Path, calm: Undisturbed, rng: random.Random, tally: Tally, most: int) -> None:
    """Kills and starts again until a mask is complete, or ``most`` kills are done; then lets it complete."""
    out = folder / "torn"
    shutil.rmtree(out, ignore_errors=True)
    before: list[int] = []
    tally.outputs += 1
    for number in range(most + 1):
        process = start(way.command(folder, out))
        closing = rng.random() < CLOSING_SHARE
        left = 0.0 if closing else calm.tiles_seconds * (1 - len(before) / calm.recorded)
        delay = rng.random() * (left + calm.closing_seconds)
        if number == most or not kill(process, out / way.mask, delay, closing):
            tally.lost_tiles += max(0, len(before) - finish(process)["resumed_tiles"])
            tally.left_behind += sum(1 for path in out.rglob(".*"))
            break
        stage = stage_of(out / way.mask)
        if stage == "over":
            tally.killed_when_over += 1
            break
        tally.kills[stage] += 1
        now = recorded(journal_of(out / way.mask))
        tally.lost_tiles += len(set(before) - set(now)) + len(now) - len(set(now))
        before = now
    tally.differing_bytes += differing(bytes_of(out), calm.bytes)


def second_start(way: Way, folder: Path, calm: Undisturbed) -> str:
    """What a second process says that is started on an output while the first is stopped."""
    out = folder / "twice"
    shutil.rmtree(out, ignore_errors=True)
    first = start(way.command(folder, out))
    if not wait_for(first, lambda: lock_of(out / way.mask).exists()):
        raise RuntimeError(f"{way.name}: the first process never began")
    os.kill(first.pid, signal.SIGSTOP)
    second = start(way.command(folder, out))
    _, err = second.communicate()
    os.kill(first.pid, signal.SIGCONT)
    finish(first)
    told = "refused" if second.returncode and "another medseg process" in err else f"NOT REFUSED: {err}"
    return told if not differing(bytes_of(out), calm.bytes) else f"{told}, BUT THE BYTES DIFFER"


def run_way(way: Way, folder: Path, kills: int, rng: random.Random) -> Tally:
    shutil.rmtree(folder / "undisturbed", ignore_errors=True)
    calm = Undisturbed(way, folder)
    tally = Tally(second_start=second_start(way, folder, calm))
    while (left := kills - sum(tally.kills.values())) > 0:
        one_output(way, folder, calm, rng, tally, left)
        print(f"{way.name}: {tally.row()}", flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=70, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    parser.add_argument("--side-2d", type=int, default=2048)
    parser.add_argument("--side-3d", type=int, default=192)
    parser.add_argument("--results", type=Path, default=RESULTS / "kills.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways = [way for way in WAYS if way.name in given.ways]
    rng = random.Random(given.seed)
    with scratch() as folder:
        make_inputs(folder, given.side_2d, given.side_3d)
        tallies = {way.name: run_way(way, folder, -(-given.kills // len(ways)), rng) for way in ways}
    rows = {name: tally.row() for name, tally in tallies.items()}
    sums = {
        key: sum(row[key] for row in rows.values()) for key in ("kills", "differing_bytes", "lost_tiles", "left_behind")
    }
    save(given.results, {**account(), **sums, "ways": rows})


if __name__ == "__main__":
    main()
