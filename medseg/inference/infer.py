"""From a model and a scan's file to a mask's file, resumable and whole or not at all.

Beside ``OUT/name.tif`` a job keeps ``.name.tif.partial`` (the sink's), ``.name.tif.journal`` and ``.name.tif.lock``;
all are gone when it is done. Where a mask is processed after the network, the network's own is ``.name.tif.raw.nii``
(or ``.raw.ome.zarr``) until the processed one has its final name: a kill in between costs the processing alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike

from medseg.errors import OutputError, TileError
from medseg.files import digest_of, partial_of
from medseg.geometry import Tiling
from medseg.inference.budget import Budget
from medseg.inference.cost import Forward
from medseg.inference.decode import MOST_FLAGS
from medseg.inference.emit import Output
from medseg.inference.journal import Journal, Terms, journal_of
from medseg.inference.lock import held
from medseg.inference.model import Model, Options, chain_of, flipped_axes
from medseg.inference.outputs import PROBABILITIES
from medseg.inference.pipeline import Progress, Report
from medseg.inference.plan import Plan, choose_blend_plan, choose_plan, overhead, spare_of
from medseg.inference.segment import Pace
from medseg.inference.segmentation import check_seg, segmentation_of
from medseg.inference.source import Source
from medseg.inference.through import through
from medseg.inference.tta import Flips, plane_of
from medseg.inference.windows import Blending
from medseg.networks.network import Network
from medseg.postprocessing.chain import raw_of, run_chain
from medseg.private import public
from medseg.scans.cache import PIECES
from medseg.scans.scan import MaskSink, create_mask, open_scan, suffix_of
from medseg.scans.segments import SEG, Segmentation
from medseg.scans.sink import as_output_error, remove
from medseg.scans.views import Cropped

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One scan's account."""

    input: Path
    output: Path
    mode: str
    plan: Plan
    voxels: int
    seconds: float
    progress: Progress
    postprocessing: tuple[dict[str, Any], ...] = ()

    @property
    def resumed_tiles(self) -> int:
        """Those that an earlier start has done."""
        return self.progress.before

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        stages = {name: getattr(self.progress, name) for name in ("read", "network", "write")}
        return {
            "input": public(self.input),
            "output": str(self.output),
            "mode": self.mode,
            "tiles": self.progress.tiles,
            "resumed_tiles": self.resumed_tiles,
            "window": list(self.plan.window),
            "seconds": self.seconds,
            "voxels": self.voxels,
            "voxels_per_second": self.voxels / self.seconds,
            "stages": {name: {"seconds": s.seconds, "bytes": s.bytes} for name, s in stages.items()},
            "plan": self.plan.to_dict(),
            "postprocessing": list(self.postprocessing),
        }


class Job:
    """One scan's way from file to file.

    Args:
        source: the scan.
        output: the mask's final name.
        model: what segments it.
        options: how.

    Raises:
        MedsegError: where the model cannot take the scan so, or the part wanted is none of it.
    """

    def __init__(self, source: Source, output: Path, model: Model, options: Options) -> None:
        self.source, self.output, self.model, self.options = source, output, model, options
        settings = options.settings or model.card.inference
        self.settings = settings.resolved(model.network, model.card.window)
        self.network: Network = model.network
        if options.turns is not None:
            rotations = options.turns == "rotations"
            plane = plane_of(source.view.axes) if rotations else (0, 1)
            self.network = Flips(model.network, options.turns, plane, None if rotations else flipped_axes(model))
        self.like = source.scan if options.part is None else Cropped(source.scan, options.part)
        self.chain = chain_of(model, options)
        self.chain.check(self.like)
        if suffix_of(output) == SEG:
            check_seg(self.like, output, self.chain.numbers, options.probabilities)

    @cached_property
    def segmentation(self) -> Segmentation | None:
        """What a DICOM SEG says of the labels; None for every other format."""
        return segmentation_of(self.model.card, self.flags) if suffix_of(self.output) == SEG else None

    @property
    def flags(self) -> bool:
        """Whether the mask takes a bit for each region, so that a DICOM SEG has them as they overlap."""
        regions = len(self.model.labels.regions)
        return suffix_of(self.output) == SEG and not self.chain.steps and 0 < regions <= MOST_FLAGS

    @property
    def mask(self) -> Path:
        """What the network's own mask is called: the output, unless that is processed."""
        return raw_of(self.output) if self.chain.steps else self.output

    @property
    def outputs(self) -> list[Path]:
        """The network's mask, and its probabilities where these are wanted."""
        shares = [] if self.options.probabilities is None else [probabilities_path(self.output)]
        return [self.mask, *shares]

    @property
    def journal_path(self) -> Path:
        """Where its journal is while it runs."""
        return journal_of(self.output)

    @property
    def parts(self) -> dict[str, str]:
        """What decides the result, but for the plan; as digests, by the name that a user knows it by."""
        part = self.options.part
        options = {
            "output": self.output.name,
            "settings": self.settings.model_dump(mode="json"),
            "turns": self.options.turns,
            "part": None if part is None else [part.start, part.stop],
            "probabilities": self.options.probabilities,
            "amp": self.options.amp,
            "device": self.model.device.type,
            "postprocessing": self.chain.to_list(),
        }
        return {
            "scan": self.source.fingerprint,
            "model": digest_of(self.model.card.model_dump(mode="json")),
            "options": digest_of(options),
        }

    @cached_property
    def earlier(self) -> Terms | None:
        """What an earlier start of this very job was begun with, or None.

        Raises:
            OutputError: where another job has left its journal there.
        """
        terms = Journal.terms_of(self.journal_path)
        if terms is None or (self.options.overwrite and terms.parts != self.parts):
            return None
        differing = [name for name, digest in self.parts.items() if terms.parts.get(name) != digest]
        if differing:
            raise OutputError(
                f"{self.output} was begun by another job and is unfinished: its {' and '.join(differing)} "
                f"differ{'s' * (len(differing) == 1)}; "
                "start it as before to go on, give --overwrite to discard it, or another -o"
            )
        return terms

    @cached_property
    def plan(self) -> Plan:
        """The earlier start's, else the one that is given, else one that fits the budget."""
        if self.earlier is not None:
            return Plan.from_dict(self.earlier.plan)
        if self.options.plan is not None:
            return self.options.plan
        options, view = self.options, self.source.view
        budget = options.budget or Budget.of_machine(self.model.device)
        how: dict[str, Any] = {"amp": options.amp, "probabilities": options.probabilities is not None}
        if self.settings.mode == "sliding-window":
            return choose_blend_plan(view, self.network, self.settings.blending, budget, batch=options.batch, **how)
        whole = self.settings.mode == "whole"
        return choose_plan(view, self.network, budget, window=options.window, batch=options.batch, whole=whole, **how)

    def way(self, plan: Plan) -> Tiling | Blending:
        """The tiles or windows of a plan."""
        if self.settings.mode == "sliding-window":
            return self.settings.blending
        return plan.tiling(self.source.view, self.network)

    def pace(self, plan: Plan) -> Pace:
        """The batches and the order of a plan."""
        hold = torch.device("cpu") if plan.hold_on_host else None
        return Pace(plan.batch, plan.ahead, plan.beam or None, amp=self.options.amp, hold=hold)

    def chunks(self, plan: Plan) -> tuple[int, ...] | None:
        """How a Zarr is stored so that no two tiles share a chunk; None where tiles lie across the file's grid."""
        whole = self.options.part is None and spare_of(self.source.view) == 0
        return plan.core if whole and self.settings.mode == "tile-overlap" else None

    def bytes_of(self, dtype: DTypeLike, channels: int | None) -> int:
        """Of a mask's voxels, uncompressed."""
        return math.prod(self.like.shape) * (channels or 1) * np.dtype(dtype).itemsize

    def expected_seconds(self, plan: Plan) -> float | None:
        """Of the network, for what is wanted of the scan; a window is timed where none was, None if it does not fit."""
        seconds = plan.seconds_per_window
        if seconds is None and not plan.fits:
            return None
        if seconds is None:
            seconds = Forward(self.network, self.options.amp).measure(plan.window, plan.batch).seconds / plan.batch
        share = math.prod(self.like.shape) / math.prod(self.source.scan.shape)
        return plan.tiles * seconds * share

    def check_output(self) -> None:
        """Refuses an output that exists and is not this job's to replace.

        Raises:
            OutputError: unless overwriting is asked for.
        """
        check_output(self.output, self.options)

    def open_output(self, plan: Plan, *, join: bool = False, overwrite: bool = False) -> Output:
        """The sinks, going on where an earlier start left them if they can; or joined from another process."""
        how = {"resume": not join, "overwrite": overwrite, "join": join}
        sinks = [self._sink(path, plan, **how) for path in self.outputs]
        shares = sinks[1] if len(sinks) > 1 else None
        if self.flags:
            return Output(sinks[0], replace(self.model.decoder, flags=True), None, shares, self.options.part)
        return Output(sinks[0], self.model.decoder, self.model.labels.decode, shares, self.options.part)

    def _sink(self, path: Path, plan: Plan, **how: bool) -> MaskSink:
        """The sink of one of the outputs."""
        chunks, precision = self.chunks(plan), self.options.probabilities
        about: dict[str, Any] = {"chunks": chunks, "segmentation": self.segmentation, **how}
        if precision is None or path == self.mask:
            about["overwrite"] |= path != self.output
            return create_mask(path, self.like, dtype=np.uint8 if self.flags else self.model.labels.dtype, **about)
        channels = self.model.channels
        return create_mask(path, self.like, dtype=precision, channels=channels, unit_interval=True, **about)

    def run(self, report: Report | None = None, say: Say | None = None, loop: Loop | None = None) -> Result:
        """Segments the scan.

        A job that was killed goes on with the tiles, batches and threads that it was started with. Where memory runs
        out, the batch is halved, then the tile, and the job begins anew.

        Args:
            report: called after each batch.
            say: takes a line about what is resumed or made smaller.
            loop: what goes through the scan; None for this process alone.

        Raises:
            MedsegError: for a scan that cannot be read, or an output that exists or cannot be written.
        """
        begun = time.perf_counter()
        say = say or (lambda line: None)
        with as_output_error(self.output):
            self.output.parent.mkdir(parents=True, exist_ok=True)
        with held(self.output):
            plan = self.plan
            if self.earlier is None:
                self.check_output()
                self.journal_path.unlink(missing_ok=True)
                remove(raw_of(self.output))
                self._check_processed()
            if self._published(plan):
                accounts = self._finish(say)
                say(f"{self.output}: was complete already")
                tiles = Progress(plan.tiles, plan.tiles, plan.tiles)
                return self._result(plan, tiles, time.perf_counter() - begun, accounts)
            if not plan.fits:
                say(f"{self.source.path}: {account(plan)} is expected to need more memory than may be held")
            if any(f.padded for f in self.network.fields) and self.settings.mode == "tile-overlap":
                work = overhead(plan.tiling(self.source.view, self.network))
                say(f"{self.source.path}: the halo of this padded network costs {work:.1f} times the work of one pass")
            while True:
                try:
                    progress = self._attempt(plan, report, say, loop or alone)
                    break
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    plan = self._smaller(plan)
                    self.journal_path.unlink(missing_ok=True)
                    say(f"{self.output}: out of memory; beginning anew with {account(plan)}")
            accounts = self._finish(say)
            return self._result(plan, progress, time.perf_counter() - begun, accounts)

    def _published(self, plan: Plan) -> bool:
        """Whether a kill hit an earlier start between the network's last step and its journal's end.

        What has not got its final name by then, as the probabilities may not have, gets it now.
        """
        if self.earlier is None or not Journal.is_complete(self.journal_path):
            return False
        if self._processed():
            return True
        waiting = [path for path in self.outputs if partial_of(path).exists()]
        if any(not path.exists() for path in self.outputs if path not in waiting):
            return False
        sinks = [self._sink(path, plan, resume=True, overwrite=True) for path in waiting]
        if not all(sink.resumed for sink in sinks):
            return False
        for sink in sinks:
            sink.close()
        return True

    def _attempt(self, plan: Plan, report: Report | None, say: Say, loop: Loop) -> Progress:
        PIECES.budget = plan.cache_bytes
        ours = self.earlier is not None or self.options.overwrite
        output = self.open_output(plan, overwrite=ours)
        if not output.resumed:
            self.journal_path.unlink(missing_ok=True)
        terms = Terms(digest_of(self.parts), plan.to_dict(), self.parts)
        with Journal(self.journal_path, terms) as journal, threads(plan.threads):
            if journal.done:
                say(f"{self.output}: going on as it was started: {account(plan)}")
            progress = loop(self, plan, output, journal, report)
            self.source.check_unchanged()
            journal.complete()
            output.close()
        return progress

    def _processed(self) -> bool:
        """Whether the network's mask has been made into the output: it is removed only then."""
        left = (self.mask, partial_of(self.mask))
        return bool(self.chain.steps) and not any(path.exists() for path in left)

    def _check_processed(self) -> None:
        """Refuses a processed mask that its format cannot hold, before anything is computed.

        Raises:
            OutputError: saying so.
        """
        if self.chain.steps:
            self._final_sink()
            remove(partial_of(self.output))

    def _final_sink(self) -> MaskSink:
        dtype = self.chain.dtype(self.model.labels.dtype)
        return create_mask(self.output, self.like, dtype=dtype, overwrite=True, segmentation=self.segmentation)

    def _finish(self, say: Say) -> tuple[dict[str, Any], ...]:
        """Makes the network's mask into the output, where steps are wanted, and ends the job; returns what they did."""
        accounts: list[dict[str, Any]] = []
        if self.chain.steps and not self._processed():
            say(f"{self.output}: {', '.join(step.name for step in self.chain.steps)}")
            sink = self._final_sink()
            accounts = run_chain(open_scan(self.mask), sink, self.chain, self.like)
            sink.close()
            remove(self.mask)
        self.journal_path.unlink(missing_ok=True)
        return tuple(accounts)

    def _smaller(self, plan: Plan) -> Plan:
        """A plan that needs less: half the batch, else half the core.

        Raises:
            TileError: where there is nothing left to halve.
        """
        if plan.batch > 1:
            return replace(plan, batch=plan.batch // 2)
        step = self.network.footprint.step
        if self.settings.mode != "tile-overlap" or all(c <= s for c, s in zip(plan.core, step, strict=True)):
            raise TileError(
                f"{self.source.path}: out of memory with {account(plan)}, the least that this way through the scan "
                "takes: use a machine or device with more memory, or --tile-overlap with a network that allows it"
            )
        longest = max(range(len(step)), key=lambda a: plan.core[a] / step[a])
        core = list(plan.core)
        core[longest] = max(core[longest] // 2, step[longest])
        tiling = replace(plan, core=tuple(core)).tiling(self.source.view, self.network)
        return replace(plan, core=tiling.core, window=tiling.window, tiles=len(tiling))

    def _result(self, plan: Plan, progress: Progress, seconds: float, accounts: tuple[dict[str, Any], ...]) -> Result:
        voxels = math.prod(self.like.shape)
        return Result(self.source.path, self.output, self.settings.mode, plan, voxels, seconds, progress, accounts)


Loop = Callable[[Job, Plan, Output, Journal, Report | None], Progress]
"""What takes a job through its tiles or windows: this process alone, or several."""


def alone(job: Job, plan: Plan, output: Output, journal: Journal, report: Report | None) -> Progress:
    """The whole job in this process."""
    return through(job.source.view, job.network, job.way(plan), output, journal, job.pace(plan), report)


def check_output(output: Path, options: Options) -> None:
    """Refuses an output that exists.

    Raises:
        OutputError: unless overwriting is asked for.
    """
    for path in (output, probabilities_path(output)) if options.probabilities else (output,):
        if path.exists() and not options.overwrite:
            raise OutputError(f"{path} exists: give --overwrite to replace it, or another -o")


def probabilities_path(output: Path) -> Path:
    """Where a mask's probabilities go: a folder beside it; pictures cannot hold them, so TIFF takes their place."""
    name = output.with_suffix(".tif").name if output.suffix == ".png" else output.name
    return output.parent / PROBABILITIES / name


def account(plan: Plan) -> str:
    """A plan as a user reads it."""
    window = " x ".join(map(str, plan.window))
    return f"window {window}, batch {plan.batch}" + (f", {plan.threads} threads" if plan.threads else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads for the network; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
