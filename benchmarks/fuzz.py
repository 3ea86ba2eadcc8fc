"""Mutated inputs through the command line: each is read, or refused in one sentence; nothing else may happen.

    python benchmarks/fuzz.py [--inputs 500] [--seed N ...] [--keep FOLDER] [--only KIND] [--workers 1]

Valid files of every kind are made, small ones: NIfTI, DICOM, TIFF, pictures, MetaImage, NRRD, Zarr, and the JSON, CSV
and YAML that medseg reads. A mutation flips bytes, cuts, repeats or grows a file, puts extreme numbers where sizes
stand, nests brackets deeply, or swaps a value for one of another type; it is a function of the seed and the input's
number. Every input goes through the commands that read its kind, in a process that handles many and is watched from
outside:

    read       the command did what it is for (exit code 0, or 3 with the scans that it skipped)
    refused    exit code 2 and one sentence of at most 500 characters
    traceback  any other exception, or several lines of error
    crash      the process died
    hang       more than 10 s of processor time, or five minutes of the clock
    fat        more than 1.5 GiB resident

Wanted are 0 of the last four. Counts by kind go to benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import logging
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

HANG_SECONDS = 10.0
"""Of processor time; the clock's limit is for what waits, on a machine that others use too."""
CLOCK_SECONDS = 300.0
MOST_BYTES = 3 << 29
GUARD_BYTES = 6 << 30
"""Of address space beyond what a worker begins with: what keeps the machine alive, not what is claimed."""
LIMIT = 500 + len("error: ")
OUTCOMES = ("read", "refused", "traceback", "crash", "hang", "fat")
EXTREME = (0, 1, -1, 2, 127, 128, 255, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
NUMBERS = ("-1", "0", "1e309", "nan", "99999999999999999999", "-99999999999", "0.5")
WORDS = (*NUMBERS, '""', "null", "[]", "{}", '"\\u0000"', "true")


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: writes a valid one into a folder; any file of it may be mutated whose name does not begin with «keep».
        commands: the command lines that read it, given the folder.
        text: whether it is a text, which is mutated by words too.
    """

    make: Callable[[Path], Sequence[Path]]
    commands: Callable[[Path, Path], list[list[str]]]
    text: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one input, by the worst of its commands; seconds are of processor time."""

    number: int
    kind: str
    what: str
    words: str
    peak_bytes: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for inputs that are neither read nor refused")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    from workbench import RESULTS, account, save

    runs = {}
    for seed in options.seed:
        found = fuzz(options.inputs, seed, options.only, options.workers, options.keep)
        for one in found:
            if one.what not in ("read", "refused"):
                print(f"{one.what:<10}{one.kind} {one.number}: {one.words}", file=sys.stderr)
        runs[str(seed)] = summary(found)
    total = {what: sum(run["all"][what] for run in runs.values()) for what in OUTCOMES}
    save(options.results or RESULTS / "fuzz.json", {**account(), "inputs": options.inputs, "all": total, "seeds": runs})


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """Counts by kind, the most memory and the longest time."""
    kinds: dict[str, Counter[str]] = {}
    for one in found:
        kinds.setdefault(one.kind, Counter())[one.what] += 1
    return {
        "all": {what: sum(count[what] for count in kinds.values()) for what in OUTCOMES},
        "kinds": {kind: {what: count[what] for what in OUTCOMES if count[what]} for kind, count in kinds.items()},
        "peak_bytes": max(one.peak_bytes for one in found),
        "longest_processor_seconds": round(max(one.seconds for one in found), 2),
    }


def fuzz(inputs: int, seed: int, only: Sequence[str], workers: int = 1, keep: Path | None = None) -> list[Outcome]:
    """Mutates so many inputs of these kinds, and runs each in a watched process."""
    with tempfile.TemporaryDirectory(prefix="medseg-fuzz-") as made:
        folder = Path(made)
        os.environ["MEDSEG_CACHE"], os.environ["MEDSEG_CONFIG"] = str(folder / "cache"), str(folder / "settings")
        prepare(folder, only)
        jobs = [(number, only[number % len(only)]) for number in range(inputs)]
        pool = [_Watched(folder, seed, jobs[part::workers], keep) for part in range(workers)]
        found: list[Outcome] = []
        while busy := [one for one in pool if one.busy]:
            for one in busy:
                found += one.look()
        return sorted(found, key=lambda one: one.number)


def prepare(folder: Path, only: Sequence[str]) -> None:
    """Makes the valid files, and the model that scans are planned with."""
    (folder / "seeds").mkdir()
    for kind in only:
        place = folder / "seeds" / kind
        place.mkdir()
        KINDS[kind].make(place)
    for dims in (2, 3):
        package(folder / f"model{dims}", dims)


class _Watched:
    """One process at its jobs, begun anew where it dies or hangs."""

    def __init__(self, folder: Path, seed: int, jobs: list[tuple[int, str]], keep: Path | None) -> None:
        self._about = folder, seed, keep
        self._left = list(jobs)
        self._process: Any = None
        self._ours: Connection

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def look(self) -> Iterator[Outcome]:
        """What has become known; waits a moment for it."""
        if self._process is None:
            self._start()
        try:
            if self._ours.poll(0.2):
                outcome = self._ours.recv()
                del self._left[0]
                self._begun = time.monotonic(), self._cpu()
                yield outcome
                if not self._left:
                    self._process.join()
                return
        except EOFError:
            self._process.join()
            yield self._lost("crash", f"exit code {self._process.exitcode}")
            return
        busy, clock = self._cpu() - self._begun[1], time.monotonic() - self._begun[0]
        if busy > HANG_SECONDS or clock > CLOCK_SECONDS:
            self._process.kill()
            self._process.join()
            yield self._lost("hang", f"{busy:.0f} s of processor time, {clock:.0f} s")

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe(duplex=False)
        folder, seed, keep = self._about
        self._process = context.Process(target=_work, args=(folder, seed, self._left, keep, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._begun = time.monotonic(), 0.0

    def _lost(self, what: str, words: str) -> Outcome:
        number, kind = self._left.pop(0)
        self._process = None
        return Outcome(number, kind, what, words, 0, time.monotonic() - self._begun[0])

    def _cpu(self) -> float:
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(folder: Path, seed: int, jobs: Sequence[tuple[int, str]], keep: Path | None, pipe: Connection) -> None:
    """A worker's life."""
    begun = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begun + GUARD_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, kind in jobs:
        pipe.send(run_one(folder, seed, number, kind, keep))
    pipe.close()


def run_one(
    folder: Path, seed: int, number: int, kind: str, keep: Path | None = None, commands: int | None = None
) -> Outcome:
    """Mutates one input and runs its commands, or the first of them, in this process.

    A number below 0 leaves the input as it is.
    """
    begun = time.process_time()
    name = f"{kind.replace(' ', '-')}{number}"
    place, out = folder / name, folder / f"{name}-out"
    if number < 0:
        shutil.copytree(folder / "seeds" / kind, place)
    else:
        mutated(folder / "seeds" / kind, place, kind, rng_of(seed, number))
    if keep is not None:
        shutil.copytree(place, keep / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
    _forget_peak()
    worst, words = "read", ""
    for order, command in enumerate(KINDS[kind].commands(place, out)[:commands]):
        if order and worst == "refused" and number % 4:
            break  # what the first command refuses, the others do mostly
        filled = [str(folder / word.lower()) if word in ("MODEL2", "MODEL3") else word for word in command]
        what, said = judged(filled)
        if OUTCOMES.index(what) > OUTCOMES.index(worst):
            worst, words = what, f"medseg {command[0]}: {said}"
    peak = _peak_bytes()
    if peak > MOST_BYTES and worst in ("read", "refused"):
        worst, words = "fat", f"{peak / 2**30:.2f} GiB"
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    if keep is not None and worst in ("read", "refused"):
        shutil.rmtree(keep / f"{kind}-{seed}-{number}", ignore_errors=True)
    return Outcome(number, kind, worst, words, peak, time.process_time() - begun)


def judged(command: Sequence[str]) -> tuple[str, str]:
    """Runs one command line in this process."""
    from medseg.cli.app import main as medseg

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = medseg(list(command))
    except BaseException:
        lines = traceback.format_exc().strip().splitlines()
        place = next((line.strip() for line in reversed(lines) if "/medseg/" in line and "File" in line), "")
        return "traceback", f"{lines[-1][:300]} | {place}"
    lines = [line for line in err.getvalue().splitlines() if line.strip()]
    if "Traceback" in err.getvalue():
        return "traceback", lines[-1][:300]
    if code in (0, 3):
        return "read", ""
    errors = [line for line in lines if line.startswith("error: ")]
    one = code == 2 and len(errors) == 1 and lines[-1] == errors[0] and len(errors[0]) <= LIMIT
    return ("refused", errors[0]) if one else ("traceback", f"exit code {code}: {err.getvalue()[-300:]!r}")


def rng_of(seed: int, number: int) -> np.random.Generator:
    """The draws of one input."""
    return np.random.default_rng([seed, number])


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


# Mutations


def mutated(source: Path, place: Path, kind: str, rng: np.random.Generator) -> None:
    """A copy of a kind's files of which one is mutated, and the others are as they were."""
    shutil.copytree(source, place)
    files = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("keep"))
    path = files[rng.integers(len(files))]
    content = path.read_bytes()
    text = KINDS[kind].text or path.suffix in (".json", ".mhd", ".nhdr", ".csv")
    if content.startswith(b"\x1f\x8b") and rng.random() < 0.7:
        path.write_bytes(gzip.compress(mutate(gzip.decompress(content), rng, False), 1))
    else:
        path.write_bytes(mutate(content, rng, text))


def mutate(content: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """One to three mutations, one after the other."""
    ways = [*BYTES, *(TEXTS * 6 if text else ())]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        content = ways[rng.integers(len(ways))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Headers stand at the beginning, mostly."""
    size = max(len(content), 1)
    return int(rng.integers(min(size, 600) if rng.random() < 0.7 else size))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(content)
    for _ in range(rng.integers(1, 12) if out else 0):
        out[_place(content, rng)] = rng.integers(256)
    return bytes(out)


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def _drop(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + int(rng.integers(1, 64)) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    at, size = _place(content, rng), int(rng.integers(1, 200))
    return content[: at + size] + content[at : at + size] * int(rng.integers(1, 50)) + content[at + size :]


def _noise(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.bytes(int(rng.integers(1, 64))) + content[at:]


def _number(content: bytes, rng: np.random.Generator) -> bytes:
    """An extreme number in the place of some bytes, aligned as headers are."""
    size = int(rng.choice([2, 4, 8]))
    value = int(rng.choice(EXTREME)) % 256**size
    at = _place(content, rng) // 2 * 2
    word = value.to_bytes(size, "little" if rng.random() < 0.8 else "big")
    if rng.random() < 0.15:
        word = np.array(rng.choice([np.nan, np.inf, -1.0, 1e30, 0.0]), "<f4").tobytes()
    return content[:at] + word + content[at + len(word) :]


def _nothing(content: bytes, rng: np.random.Generator) -> bytes:
    return b"" if rng.random() < 0.3 else content[:1]


def _nest(content: bytes, rng: np.random.Generator) -> bytes:
    depth = int(rng.choice([50, 3000, 100_000]))
    opening = [b"[", b'{"a":', b"(", b"<a>"][rng.integers(4)]
    at = _place(content, rng)
    return content[:at] + opening * depth + content[at:]


def _swap(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of a text for one of another type, or an extreme one."""
    values = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"\n]*"|\btrue\b|\bnull\b|(?<=: )[\w.]+|(?<== )[^\n]+', content))
    if not values:
        return content
    found = values[rng.integers(len(values))]
    return content[: found.start()] + WORDS[rng.integers(len(WORDS))].encode() + content[found.end() :]


def _forget(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[rng.integers(len(lines))]
    return b"".join(lines)


def _key(content: bytes, rng: np.random.Generator) -> bytes:
    """The text of a key or value, changed: another name, a NUL, a lone surrogate, a path that leads elsewhere."""
    words = list(re.finditer(rb"[A-Za-z_]{3,}", content))
    if not words:
        return content
    found = words[rng.integers(len(words))]
    other = [b"zzz", b"\x00", b"\xed\xa0\x80", b"../../etc", b"\\ud800", b"A" * 5000, b"%s%n", b"!!python/object:os.x"]
    return content[: found.start()] + other[rng.integers(len(other))] + content[found.end() :]


BYTES = (*(_flip,) * 4, *(_number,) * 5, _drop, _repeat, _noise, _cut, _nothing)
TEXTS = (*(_swap,) * 4, _forget, _key, _key, _nest)


# Valid files


def voxels(shape: Sequence[int], dtype: str = "i2", seed: int = 0) -> NDArray:
    """Some values."""
    return (np.random.default_rng(seed).random(shape) * 200).astype(dtype)


def _nifti(suffix: str, kind: Any = nib.Nifti1Image) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        nib.save(kind(voxels((9, 8, 7)), np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"scan{suffix}")
        return list(folder.iterdir())

    return make


def _dicom(syntax: Any = ExplicitVRLittleEndian, slices: int = 1) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        for k in range(slices):
            _slice(k, syntax).save_as(folder / ("scan.dcm" if slices == 1 else f"{k}.dcm"), enforce_file_format=True)
        return list(folder.iterdir())

    return make


def _slice(k: int, syntax: Any) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.4.{k + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Modality, made.PatientName, made.SeriesInstanceUID, made.StudyInstanceUID = "CT", "A^B", "1.2.3", "1.2"
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, 2.5 * k], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness, made.RescaleSlope, made.RescaleIntercept = [1, 1], "2.5", "1", "-1024"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.Rows, made.Columns = 1, "MONOCHROME2", 10, 12
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = voxels((10, 12), "u2").tobytes()
    made["PixelData"].VR = "OW"
    if syntax == RLELossless:
        made.compress(RLELossless, generate_instance_uid=False)
    return made


def _enhanced(folder: Path) -> list[Path]:
    made = _slice(0, ExplicitVRLittleEndian)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    made.NumberOfFrames, made.PixelData = 3, voxels((3, 10, 12), "u2").tobytes()

    def item(**groups: dict[str, Any]) -> pydicom.Dataset:
        made_item = pydicom.Dataset()
        for keyword, elements in groups.items():
            inner = pydicom.Dataset()
            for key, value in elements.items():
                setattr(inner, key, value)
            setattr(made_item, keyword, pydicom.Sequence([inner]))
        return made_item

    del made.ImagePositionPatient, made.ImageOrientationPatient, made.PixelSpacing
    made.SharedFunctionalGroupsSequence = pydicom.Sequence(
        [
            item(
                PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
                PixelMeasuresSequence={"PixelSpacing": [1, 1], "SliceThickness": "2"},
            )
        ]
    )
    made.PerFrameFunctionalGroupsSequence = pydicom.Sequence(
        [item(PlanePositionSequence={"ImagePositionPatient": [0, 0, 2 * k]}) for k in range(3)]
    )
    made.save_as(folder / "scan.dcm", enforce_file_format=True)
    return [folder / "scan.dcm"]


def _tiff(name: str = "scan.tif", shape: Sequence[int] = (33, 20), **how: Any) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        tifffile.imwrite(folder / name, voxels(shape, "u1"), **how)
        return [folder / name]

    return make


def _picture(name: str, mode: str = "L") -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        Image.fromarray(voxels((21, 18), "u1")).convert(mode).save(folder / name)
        return [folder / name]

    return make


def _itk(name: str, compressed: bool = False) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels((7, 8, 9))), str(folder / name), compressed)
        return list(folder.iterdir())

    return make


def _zarr(version: int) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        group = zarr.open_group(folder / "scan.zarr", mode="w", zarr_format=version)
        array = group.create_array("0", shape=(7, 8, 9), chunks=(4, 4, 4), dtype="i2")
        array[:] = voxels((7, 8, 9))
        scale = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]
        axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        about = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}]}
        group.attrs.update({"ome": {"version": "0.5", **about}} if version == 3 else about)
        return list(folder.rglob("*"))

    return make


def package(folder: Path, dims: int) -> None:
    """A model package for scans of so many axes."""
    from workbench import random_network, write_model

    from medseg.scans.preprocessing import Preprocessing

    spec = {"name": "unet", "dims": dims, "in_channels": 1, "out_channels": 2, "depth": 1, "width": 2}
    write_model(folder, random_network(spec), spec, Preprocessing())


def _package(folder: Path) -> list[Path]:
    package(folder / "model", 3)
    nib.save(nib.Nifti1Image(voxels((9, 8, 7)), np.eye(4)), folder / "keep.nii")
    return [folder / "model" / "model.json"]


def _pairs(folder: Path, images: str = "images", labels: str = "labels", first: str = "") -> None:
    for kind, ending in ((images, first), (labels, "")):
        (folder / kind).mkdir()
        for case in "ab":
            image = voxels((9, 8, 7), seed=ord(case))
            image = (image > 100).astype(np.uint8) if kind == labels else image
            nib.save(nib.Nifti1Image(image, np.eye(4)), folder / kind / f"keep_{case}{ending}.nii")


def _described(content: dict[str, Any], *layout: str) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        _pairs(folder, *layout)
        (folder / "dataset.json").write_text(json.dumps(content, indent=1))
        parts = {"train": ["keep_a"], "validation": ["keep_b"]}
        (folder / "split.json").write_text(json.dumps(parts))
        (folder / "splits_final.json").write_text(json.dumps([{"train": ["keep_a"], "val": ["keep_b"]}]))
        return [folder / "dataset.json"]

    return make


def _manifest(name: str) -> Callable[[Path], Sequence[Path]]:
    def make(folder: Path) -> list[Path]:
        _pairs(folder)
        rows: list[dict[str, str]] = [
            {"image": f"images/keep_{c}.nii", "label": f"labels/keep_{c}.nii", "patient": c, "fold": str(n)}
            for n, c in enumerate("ab")
        ]
        with (folder / name).open("w", newline="") as file:
            if name.endswith("json"):
                json.dump(rows, file, indent=1)
            else:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return [folder / name]

    return make


CONFIG = """name: fuzz
seed: 1
data: {root: data, labels: {background: 0, lesion: [1, 2]}, validation: 0.5, exclude: [], train: null}
preprocessing: {spacing_mm: [1.0, 1.0, 2.0], normalize: {kind: zscore}}
network: {name: unet, dims: 3, width: 2, depth: 1, norm: batch}
loss: {name: dice_ce}
augmentation: [{name: flip}, {name: rotate, degrees: 15}]
training: {max_steps: 2, batch: 1, window: [28], learning_rate: 0.001}
inference: {mode: tile-overlap}
postprocessing: [{name: keep_largest}]
tracking: {uri: "sqlite:///x.db", pictures: 0}
"""


def _config(folder: Path) -> list[Path]:
    _pairs(folder)
    (folder / "fuzz.yaml").write_text(CONFIG)
    return [folder / "fuzz.yaml"]


def _steps(folder: Path) -> list[Path]:
    (folder / "steps.yaml").write_text("- {name: remove_small, min_voxels: 5}\n- {name: fill_holes, labels: ['1']}\n")
    nib.save(nib.Nifti1Image((voxels((9, 8, 7)) > 100).astype(np.uint8), np.eye(4)), folder / "keep.nii")
    return [folder / "steps.yaml"]


def _segmented(folder: Path) -> list[Path]:
    """A folder as medseg infer leaves it behind in the middle of a job."""
    nib.save(nib.Nifti1Image(voxels((9, 8, 7)), np.eye(4)), folder / "keep.nii")
    nib.save(nib.Nifti1Image((voxels((9, 8, 7)) > 100).astype(np.uint8), np.eye(4)), folder / "keep_truth.nii")
    out = folder / "out"
    out.mkdir()
    rows = [{"input": "keep.nii", "output": str(out / "keep.nii"), "status": "done", "why": "", "key": "0" * 64}]
    (out / "report.json").write_text(json.dumps({"scans": rows}, indent=1))
    (out / "inference.json").write_text(json.dumps({"labels": {"values": {"background": 0, "blob": 1}}}, indent=1))
    terms = {"digest": "0" * 64, "plan": {"core": [22, 22, 22]}, "parts": {"scan": "a", "model": "b", "options": "c"}}
    (out / ".keep.nii.journal").write_text(f"{json.dumps(terms)}\n[0]\n[1, 2]\n")
    return [out / "report.json"]


def _evaluated(folder: Path) -> list[Path]:
    from medseg.cli.app import main as medseg

    _pairs(folder)
    shutil.copytree(folder / "labels", folder / "masks")
    for name in ("one", "two"):
        words = ["evaluate", "--predictions", str(folder / "masks"), "--references", str(folder / "labels")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            medseg([*words, "-o", str(folder / name), "--metrics", "dice", "--no-html"])
        (folder / name / "metrics.csv").rename(folder / name / "keep.csv")
    return [folder / "one" / "metrics.json"]


def _scan_commands(name: str = "", dims: int = 3) -> Callable[[Path, Path], list[list[str]]]:
    def commands(place: Path, out: Path) -> list[list[str]]:
        scan = str(place / name) if name else str(place)
        return [["info", scan], ["infer", scan, "-m", f"MODEL{dims}", "-o", str(out), "--dry-run"]]

    return commands


def _checked(config: str = "") -> Callable[[Path, Path], list[list[str]]]:
    def commands(place: Path, out: Path) -> list[list[str]]:
        return [["check", str(place / config) if config else str(place), "--workers", "1", "-o", str(out)]]

    return commands


def _with_model(place: Path, out: Path) -> list[list[str]]:
    return [["infer", str(place / "keep.nii"), "-m", str(place / "model"), "-o", str(out), "--dry-run"]]


def _trained(place: Path, out: Path) -> list[list[str]]:
    words = [str(place / "fuzz.yaml"), f"data.root={place}"]
    checked = ["check", *words, "--workers", "1"]
    tracked = ["tracking.uri=sqlite:///" + str(place / "runs.db"), "tracking.review=false", "training.max_steps=1"]
    return [checked, ["train", *words, *tracked, "training.workers=0", "-o", str(out)]]


def _stepped(place: Path, out: Path) -> list[list[str]]:
    return [["postprocess", str(place / "keep.nii"), "--steps", str(place / "steps.yaml"), "-o", str(out)]]


def _resumed(place: Path, out: Path) -> list[list[str]]:
    truth = str(place / "keep_truth.nii")
    return [
        ["infer", str(place / "keep.nii"), "-m", "MODEL3", "-o", str(place / "out"), "--tile", "44", "--overwrite"],
        ["evaluate", "--predictions", str(place / "out" / "keep.nii"), "--references", truth, "--metrics", "dice"],
    ]


def _compared(place: Path, out: Path) -> list[list[str]]:
    return [["compare", str(place / "one"), str(place / "two"), "--no-tracking", "-o", str(out)]]


OWN = {"name": "x", "dims": 3, "channels": 1, "labels": {"background": 0, "lesion": 1}, "patients": {"keep_a": "p"}}
MSD = {
    "name": "x",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "lesion"},
    "numTraining": 2,
    "training": [{"image": f"./imagesTr/keep_{c}.nii", "label": f"./labelsTr/keep_{c}.nii"} for c in "ab"],
}
NNUNET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii",
}
KINDS: dict[str, Kind] = {
    "nii": Kind(_nifti(".nii"), _scan_commands("scan.nii")),
    "nii.gz": Kind(_nifti(".nii.gz"), _scan_commands("scan.nii.gz")),
    "nii2": Kind(_nifti(".nii", nib.Nifti2Image), _scan_commands("scan.nii")),
    "hdr": Kind(_nifti(".hdr", nib.Nifti1Pair), _scan_commands("scan.hdr")),
    "dcm": Kind(_dicom(), _scan_commands("scan.dcm", 2)),
    "dcm implicit": Kind(_dicom(ImplicitVRLittleEndian), _scan_commands("scan.dcm", 2)),
    "dcm rle": Kind(_dicom(RLELossless), _scan_commands("scan.dcm", 2)),
    "dcm enhanced": Kind(_enhanced, _scan_commands("scan.dcm")),
    "dcm series": Kind(_dicom(slices=4), _scan_commands()),
    "tif": Kind(_tiff(), _scan_commands("scan.tif", 2)),
    "tif tiled": Kind(
        _tiff(shape=(3, 48, 40), tile=(16, 16), compression="zlib", metadata={"axes": "ZYX"}),
        _scan_commands("scan.tif"),
    ),
    "ome.tif": Kind(
        _tiff("scan.ome.tif", (5, 20, 22), metadata={"axes": "ZYX", "PhysicalSizeX": 0.5}),
        _scan_commands("scan.ome.tif"),
    ),
    "bigtiff": Kind(_tiff(shape=(30, 28), bigtiff=True, compression="lzw"), _scan_commands("scan.tif", 2)),
    "png": Kind(_picture("scan.png"), _scan_commands("scan.png", 2)),
    "png colours": Kind(_picture("scan.png", "P"), _scan_commands("scan.png", 2)),
    "jpg": Kind(_picture("scan.jpg"), _scan_commands("scan.jpg", 2)),
    "gif": Kind(_picture("scan.gif"), _scan_commands("scan.gif", 2)),
    "bmp": Kind(_picture("scan.bmp"), _scan_commands("scan.bmp", 2)),
    "mha": Kind(_itk("scan.mha"), _scan_commands("scan.mha")),
    "mha zlib": Kind(_itk("scan.mha", True), _scan_commands("scan.mha")),
    "mhd": Kind(_itk("scan.mhd"), _scan_commands("scan.mhd")),
    "nrrd": Kind(_itk("scan.nrrd"), _scan_commands("scan.nrrd")),
    "nrrd gzip": Kind(_itk("scan.nrrd", True), _scan_commands("scan.nrrd")),
    "nhdr": Kind(_itk("scan.nhdr"), _scan_commands("scan.nhdr")),
    "zarr 2": Kind(_zarr(2), _scan_commands("scan.zarr")),
    "zarr 3": Kind(_zarr(3), _scan_commands("scan.zarr")),
    "model.json": Kind(_package, _with_model, True),
    "dataset.json": Kind(_described(OWN), _checked(), True),
    "msd": Kind(_described(MSD, "imagesTr", "labelsTr"), _checked(), True),
    "nnunet": Kind(_described(NNUNET, "imagesTr", "labelsTr", "_0000"), _checked(), True),
    "manifest.json": Kind(_manifest("manifest.json"), _checked("manifest.json"), True),
    "manifest.csv": Kind(_manifest("manifest.csv"), _checked(), True),
    "config": Kind(_config, _trained, True),
    "steps": Kind(_steps, _stepped, True),
    "report and journal": Kind(_segmented, _resumed, True),
    "metrics.json": Kind(_evaluated, _compared, True),
}
"""Every kind that is mutated."""

for _noisy in ("pydicom", "tifffile", "nibabel", "nibabel.global", "PIL"):
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)

if __name__ == "__main__":
    main()
