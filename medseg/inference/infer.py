"""From a model and a scan's file to a mask's file, resumable and whole or not at all.

Beside ``OUT/name.tif`` a job keeps ``.name.tif.partial`` (the sink's) and ``.name.tif.journal``; both are gone when it
is done.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.datasets.labels import Labels
from medseg.errors import OutputError
from medseg.files import digest_of
from medseg.geometry import Tiling
from medseg.inference.decode import Decoder
from medseg.inference.journal import Journal, Terms, fingerprint
from medseg.inference.segment import Output, Progress, check_channels, prepare, segment
from medseg.inference.window import choose_tiling
from medseg.networks.network import Network
from medseg.package import ModelCard, find_package, read_card, read_network
from medseg.scans.scan import MaskSink, Scan, create_mask, open_scan

PROBABILITIES = "probabilities"
"""The folder beside the masks that takes probabilities."""


@dataclass(frozen=True)
class Model:
    """A package, loaded and ready on a device."""

    card: ModelCard
    network: Network
    device: torch.device

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Model:
        """From a package folder or a run's folder.

        Raises:
            PackageError: where there is none, or it is damaged, foreign or too new.
        """
        folder = find_package(path)
        card = read_card(folder)
        return cls(card, prepare(read_network(folder, card), device), device)

    @property
    def labels(self) -> Labels:
        """What the masks' values mean."""
        return self.card.label_map


@dataclass(frozen=True)
class Options:
    """How a scan is to be segmented.

    Attributes:
        window: what the network sees at once, one number an axis or one for all; None lets the scan decide.
        whole: one pass over the whole scan.
        batch: tiles that go through the network together.
        probabilities: write these too, float32, one channel an output channel of the network.
        overwrite: an output that exists is replaced.
    """

    window: tuple[int, ...] | None = None
    whole: bool = False
    batch: int = 1
    probabilities: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Result:
    """One scan's account."""

    input: Path
    output: Path
    tiles: int
    resumed_tiles: int
    window: tuple[int, ...]
    voxels: int
    seconds: float
    forward_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "input": str(self.input),
            "output": str(self.output),
            "tiles": self.tiles,
            "resumed_tiles": self.resumed_tiles,
            "window": list(self.window),
            "seconds": self.seconds,
            "forward_seconds": self.forward_seconds,
            "voxels": self.voxels,
            "voxels_per_second": self.voxels / self.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }


def check_output(output: Path, options: Options) -> None:
    """Refuses an output that exists.

    Raises:
        OutputError: unless overwriting is asked for.
    """
    for path in (output, probabilities_path(output)) if options.probabilities else (output,):
        if path.exists() and not options.overwrite:
            raise OutputError(f"{path} exists: give --overwrite to replace it, or another -o")


def infer(
    path: Path,
    output: Path,
    model: Model,
    options: Options,
    report: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Segments one scan into one mask on the scan's own grid.

    A job that was killed goes on with the tile, grouping and threads that it was started with.

    Args:
        report: called after each group of tiles.
        say: takes a line about what is resumed.

    Raises:
        MedsegError: for a scan that cannot be read or that the model cannot take, or an output that exists.
    """
    begun = time.perf_counter()
    scan = open_scan(path)
    check_channels(scan, model.network)
    check_output(output, options)
    output.parent.mkdir(parents=True, exist_ok=True)
    job = _Job(path, scan, output, model, options)
    view = model.card.preprocessing.view(scan)
    terms, tiling = job.terms(view)
    writing = job.open_output(tiling)
    if not writing.resumed:
        job.journal_path.unlink(missing_ok=True)
    if terms.threads:
        torch.set_num_threads(terms.threads)
    with Journal(job.journal_path, terms) as journal:
        resumed = len(journal.done)
        if resumed and say is not None:
            say(f"{output}: going on after {resumed} of {len(tiling)} tiles, as it was started: {job.account(terms)}")
        progress = segment(view, model.network, tiling, writing, journal, batch=terms.batch, report=report)
        writing.close()
        journal.remove()
    voxels = int(np.prod(scan.shape, dtype=np.int64))
    seconds = time.perf_counter() - begun
    return Result(path, output, len(tiling), resumed, tiling.window, voxels, seconds, progress.forward_seconds)


@dataclass(frozen=True)
class _Job:
    """One scan's way from file to file."""

    path: Path
    scan: Scan
    output: Path
    model: Model
    options: Options

    @property
    def journal_path(self) -> Path:
        return self.output.with_name(f".{self.output.name}.journal")

    @property
    def threads(self) -> int:
        return torch.get_num_threads() if self.model.device.type == "cpu" else 0

    @property
    def digest(self) -> str:
        """Of all that decides the result but what the journal itself keeps."""
        return digest_of(
            {
                "scan": fingerprint(self.path),
                "model": self.model.card.model_dump(mode="json"),
                "output": self.output.name,
                "whole": self.options.whole,
                "probabilities": self.options.probabilities,
                "device": self.model.device.type,
            }
        )

    def terms(self, view: Scan) -> tuple[Terms, Tiling]:
        """Those of an earlier start of this very job, else new ones; and the tiling that they mean."""
        network = self.model.network
        tiling = choose_tiling(view, network, self.options.window, self.options.whole)
        terms = Journal.terms_of(self.journal_path)
        if terms is None or terms.digest != self.digest:
            return Terms(self.digest, tiling.core, self.options.batch, self.threads), tiling
        return terms, Tiling(view.shape, terms.core, network.footprint, tiling.spare)

    @staticmethod
    def account(terms: Terms) -> str:
        """The terms as a user reads them."""
        core = " x ".join(map(str, terms.core))
        return f"core {core}, batch {terms.batch}" + (f", {terms.threads} threads" if terms.threads else "")

    def open_output(self, tiling: Tiling) -> Output:
        """The sinks, going on where an earlier start left them if they can."""
        chunks = tiling.core if tiling.spare == 0 else None  # a tile of another grid fits no chunk of this one
        labels, overwrite = self.model.labels, self.options.overwrite
        sink = create_mask(self.output, self.scan, dtype=labels.dtype, chunks=chunks, resume=True, overwrite=overwrite)
        shares: MaskSink | None = None
        if self.options.probabilities:
            shares = create_mask(
                probabilities_path(self.output),
                self.scan,
                dtype=np.float32,
                channels=self.model.network.out_channels,
                chunks=chunks,
                resume=True,
                overwrite=overwrite,
            )
        return Output(sink, Decoder(self.model.card.activation), labels.decode, shares)


def probabilities_path(output: Path) -> Path:
    """Where a mask's probabilities go: a folder beside it; pictures cannot hold them, so TIFF takes their place."""
    name = output.with_suffix(".tif").name if output.suffix == ".png" else output.name
    return output.parent / PROBABILITIES / name


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
