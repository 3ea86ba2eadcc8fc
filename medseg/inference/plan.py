"""How a scan is gone through: the fastest tiles that fit into the memory that may be used.

    candidates   cores that waste little, for windows from the least that the network takes to the whole scan
    fit          of these, what the host and the device can hold (:mod:`medseg.inference.cost`)
    fastest      of these, the least seconds for all tiles: a larger core wastes less halo, a smaller one keeps to the
                 processor's caches, so a few are timed; in a job that is too short for that, windows that are known
                 to do (:data:`medseg.inference.window.WIDEST`)

Legend: N tiles in a batch, C input channels, K output channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch

from medseg.errors import ConfigError, TileError
from medseg.geometry import Tiling
from medseg.inference.budget import Budget, format_size
from medseg.inference.cost import REPETITIONS, Forward, logits_bytes, timing_seconds, window_bytes
from medseg.inference.pipeline import AHEAD
from medseg.inference.process_memory import resident_bytes
from medseg.inference.window import WIDEST, cheapest_core, choose_tiling
from medseg.inference.windows import Blending, Windows
from medseg.networks.network import Network
from medseg.scans.gridmap import grid_map, own_scan
from medseg.scans.protocol import Scan

SHARE_OF_TIME = 0.03
MOST_SECONDS = 20.0
"""What is spent on timing: at most so much of the expected time, and so many seconds."""
SHORT_SECONDS = 10.0
"""A job that is expected to take less is not worth timing."""
LADDER = 1.2
"""How much wider the windows of one candidate may be than those of the one before."""
FASTER = 1.2
"""A candidate is not timed where it would lose although it ran so much faster than anything yet timed."""
BATCH_GAIN = 0.97
"""A batch is doubled as long as a tile takes less than so much of its time before."""
MOST_BATCH = 64
PIECE = 64
"""Voxels by which the decoded pieces of a file stick out of a window along an axis, as far as is assumed."""
LEAST_CACHE_BYTES = 16 << 20
HOLES = 1.25
"""What arrays that come and go in several threads take of the heap, for each byte of theirs."""
SINK_BYTES = 64 << 20
"""What encoding and writing one tile takes besides its arrays."""


@dataclass(frozen=True)
class Plan:
    """How a scan is gone through, and what that is expected to take.

    Attributes:
        core: of the tiles; where windows slide, the distance between them.
        window: what the network sees at once.
        tiles: how many, or how many windows slide.
        batch: tiles that go through the network together.
        ahead: batches that wait before and after the network.
        beam: tiles across a beam of the walk, along each axis after the first; empty where windows slide.
        cache_bytes: for decoded pieces of the file.
        threads: of the network on the CPU; 0 elsewhere.
        host_bytes: expected at the peak, all that the process holds.
        device_bytes: the same on a GPU; 0 elsewhere.
        seconds_per_window: the network's, for one of a batch; None where that was not timed.
        fits: whether that is within the budget.
        hold_on_host: where windows slide, whether their sums are kept on the host since the GPU cannot hold them.
    """

    core: tuple[int, ...]
    window: tuple[int, ...]
    tiles: int
    batch: int
    ahead: int
    beam: tuple[int, ...]
    cache_bytes: int
    threads: int
    host_bytes: int
    device_bytes: int
    seconds_per_window: float | None = None
    fits: bool = True
    hold_on_host: bool = False

    @property
    def seconds(self) -> float | None:
        """What the network is expected to take for the whole scan."""
        return None if self.seconds_per_window is None else self.tiles * self.seconds_per_window

    def tiling(self, view: Scan, network: Network) -> Tiling:
        """The tiles that it means."""
        return Tiling(view.shape, self.core, network.footprint, spare_of(view))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """What :meth:`to_dict` gave.

        Raises:
            ConfigError: where it is not that.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(content, Mapping) or set(content) != names:
            raise ConfigError(f"a plan has the keys {', '.join(sorted(names))}; this one is {content!r}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return cls(**values)


def overhead(tiling: Tiling) -> float:
    """How much work the halo costs: voxels of all windows for one voxel of the scan."""
    return len(tiling) * math.prod(tiling.window) / math.prod(tiling.extent)


def spare_of(view: Scan) -> int:
    """The voxels that a tile must answer for beyond its write box: one where the view's grid is not the file's."""
    return 0 if grid_map(view).identity else 1


def choose_plan(
    view: Scan,
    network: Network,
    budget: Budget,
    *,
    window: Sequence[int] | None = None,
    batch: int | None = None,
    whole: bool = False,
    tta: int = 1,
    amp: bool = False,
    probabilities: bool = False,
) -> Plan:
    """The plan of the fastest tiles that fit.

    Args:
        view: what the network sees of a scan.
        network: as it will run, on its device.
        budget: what may be held.
        window: what the network is to see at once; it is obeyed, and ``fits`` says whether the budget holds it.
        batch: tiles that go through the network together; obeyed likewise.
        whole: one pass over the whole scan, as for a network whose context is its whole window.
        tta: passes for each tile that the network itself does not count.
        amp: whether the network runs in mixed precision.
        probabilities: whether these are written too.

    Raises:
        TileError: where the network cannot take the window, or where not even the least one fits; it says what would.
    """
    search = _Search(view, network, budget, Forward(network, amp), tta, probabilities)
    if whole or window is not None or not network.footprint.exact:
        return search.obeyed(choose_tiling(view, network, window, whole), batch)
    return search.fastest(batch)


@dataclass(frozen=True)
class _Needs:
    """What is expected at the peak."""

    host: int
    device: int = 0

    def with_cache(self, bytes: int) -> _Needs:
        return replace(self, host=self.host + bytes)

    def within(self, budget: Budget) -> bool:
        on_device = budget.device_bytes is None or self.device <= budget.device_bytes
        return self.host <= budget.host_bytes and on_device


@dataclass(frozen=True)
class _Job:
    """What tiles and sliding windows have in common: a scan, a network, and what may be spent."""

    view: Scan
    network: Network
    budget: Budget
    forward: Forward
    tta: int
    probabilities: bool

    @cached_property
    def held(self) -> _Needs:
        """What is held before anything is read, by the host and by its GPU."""
        on_gpu = torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0
        return _Needs(resident_bytes() + SINK_BYTES, on_gpu)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def threads(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 0

    @cached_property
    def finer(self) -> float:
        """Voxels of the file for one of the view."""
        return 1 / abs(math.prod(grid_map(self.view).scale))

    def reading(self, window: Sequence[int], batch: int, ahead: int) -> int:
        """Windows that wait, the one that is computed, and the copies that are made while one is read."""
        single = window_bytes(self.network, window)
        source = 0 if spare_of(self.view) == 0 else int(single * max(self.finer, 1))
        return (ahead + 2) * batch * single + 2 * (single + source)

    def per_tile(self, window: Sequence[int], batch: int) -> float | None:
        """Seconds of the network, measured; None where this window was not."""
        sample = self.forward.samples.get((tuple(window), batch))
        return None if sample is None else sample.seconds * self.tta / batch

    def pays(self, probe: Sequence[int], flops: int, batch: int = 1) -> float:
        """Seconds to spend on timing in a job of so many operations, 0 where it is too short; a probe may be timed."""
        if not self.forward.samples:
            if 2 * REPETITIONS * self.forward.count(probe, batch).flops > SHARE_OF_TIME * flops:
                return 0.0
            self.forward.measure(probe, batch)
        expected = flops / self.forward.rate
        return 0.0 if expected < SHORT_SECONDS else min(SHARE_OF_TIME * expected, MOST_SECONDS)

    def timed(self, window: Sequence[int], batch: int, seconds: float) -> float:
        """Times a window if it is expected to take no longer than ``seconds``; returns what is left of them."""
        if (tuple(window), batch) in self.forward.samples:
            return seconds
        expected = self.forward.count(window, batch).flops / self.forward.rate
        if timing_seconds(expected) > seconds:
            return seconds
        return seconds - timing_seconds(self.forward.measure(window, batch).seconds)

    def doubled(self, window: Sequence[int], most: int, fits: Callable[[int], bool], left: float) -> int:
        """A batch, doubled from 1 as long as that is faster, fits, and there is time to find out."""
        batch = 1
        left = self.timed(window, batch, left) if left > 0 else 0.0
        while left > 0 and 2 * batch <= min(MOST_BATCH, most) and fits(2 * batch):
            left = self.timed(window, 2 * batch, left)
            before, now = (self.forward.samples.get((tuple(window), b)) for b in (batch, 2 * batch))
            if now is None or before is None or now.seconds > 2 * BATCH_GAIN * before.seconds:
                break
            batch *= 2
        return batch


@dataclass(frozen=True)
class _Search(_Job):
    """The search for tiles."""

    def obeyed(self, tiling: Tiling, batch: int | None) -> Plan:
        """The plan of these tiles, whether they fit or not."""
        if batch is not None or len(tiling) == 1:
            return self.plan(tiling, batch or 1)
        left = self.pays(tiling.window, self.flops(tiling)) if self.fits(tiling, 1) else 0.0
        return self.plan(tiling, self.best_batch(tiling, left))

    def best_batch(self, tiling: Tiling, left: float) -> int:
        """The fastest that fits, as far as there is time to find out."""
        return self.doubled(tiling.window, len(tiling), lambda batch: self.fits(tiling, batch), left)

    def fastest(self, batch: int | None) -> Plan:
        """The plan of the fastest tiles that fit."""
        size = batch or 1
        least = self.tiling(1)
        if not self.fits(least, size):
            self.refuse(least, size)
        chosen = self.usual(least, size)
        left = self.pays(least.window, self.flops(chosen), size)
        if not left:
            return self.plan(chosen, size)
        best, left = self.fastest_timed(chosen, size, left)
        if not self.fits(best, size):  # what was measured is more than what was counted
            best = self.usual(least, size)
        return self.plan(best, size if batch else self.best_batch(best, left))

    def tiling(self, widest: int) -> Tiling:
        """The cheapest tiles of windows up to ``widest``."""
        shape, footprint, spare = self.view.shape, self.network.footprint, spare_of(self.view)
        return Tiling(shape, cheapest_core(shape, footprint, spare, widest), footprint, spare)

    def usual(self, least: Tiling, batch: int) -> Tiling:
        """The cheapest tiles of windows up to :data:`WIDEST`, or as wide as fits."""
        widest = float(WIDEST[len(least.extent)])
        while widest > max(least.window):
            tiling = self.tiling(int(widest))
            if self.fits(tiling, batch):
                return tiling
            widest /= LADDER
        return least

    def candidates(self, batch: int) -> Iterator[Tiling]:
        """The cheapest tiles for windows up to ever wider ones, as far as they fit."""
        widest = float(max(self.tiling(1).window))
        seen: set[tuple[int, ...]] = set()
        whole = max(Tiling.whole(self.view.shape, self.network.footprint, spare_of(self.view)).window)
        while widest < whole * LADDER:
            tiling = self.tiling(int(widest))
            if not self.fits(tiling, batch):
                return
            if tiling.core not in seen:
                seen.add(tiling.core)
                yield tiling
            widest *= LADDER

    def fastest_timed(self, first: Tiling, batch: int, left: float) -> tuple[Tiling, float]:
        """Of the candidates, as many as there is time for, and the time left.

        First narrower and narrower windows, which are timed in less and less time, then wider ones.
        """

        def order(tiling: Tiling) -> tuple[bool, float]:
            ratio = math.prod(tiling.window) / math.prod(first.window)
            return ratio > 1, abs(math.log(ratio))

        best = first
        fastest = math.inf
        for tiling in sorted([first, *self.candidates(batch)], key=order):
            if self.flops(tiling) / (FASTER * self.forward.rate) > fastest:
                continue
            left = self.timed(tiling.window, batch, left)
            seconds = self.per_tile(tiling.window, batch)
            if seconds is None and tiling is first:
                return first, 0.0
            if seconds is not None and len(tiling) * seconds < fastest:
                best, fastest = tiling, len(tiling) * seconds
        return best, left

    def flops(self, tiling: Tiling) -> int:
        """Floating-point operations for all tiles."""
        return len(tiling) * self.forward.count(tiling.window).flops * self.tta

    def needs(self, tiling: Tiling, batch: int, ahead: int) -> _Needs:
        """What is held besides decoded pieces."""
        waiting = min(ahead, -(-len(tiling) // batch) - 1)
        forward = self.forward.bytes(tiling.window, batch)
        answered = [c + tiling.spare for c in tiling.core]
        logits = logits_bytes(self.network, self.network.footprint.core_shape(tiling.window), batch)
        shares = self.probabilities or tiling.spare > 0
        decided = batch * math.prod(answered) * (4 * self.network.out_channels if shares else 1)
        kept = decided if self.device.type == "cuda" else logits
        deciding = int(math.prod(answered) * self.deciding(shares))
        moving = self.reading(tiling.window, batch, waiting) + (waiting + 1) * kept + deciding
        host = self.held.host + int(HOLES * moving)
        if self.device.type != "cuda":
            return _Needs(host + forward)
        windows = 2 * window_bytes(self.network, tiling.window, batch)
        return _Needs(host, self.held.device + forward + windows + logits + 2 * decided)

    def deciding(self, shares: bool) -> float:
        """Bytes for each voxel of a tile while it is decided: probabilities, their copies, and classes."""
        copies = 3 * self.finer if spare_of(self.view) else 2
        return 4 * self.network.out_channels * copies * shares + 16 * max(self.finer, 1)

    def fits(self, tiling: Tiling, batch: int) -> bool:
        """Whether the budget holds these tiles, if need be with one batch ahead."""
        return self.needs(tiling, batch, 1).with_cache(LEAST_CACHE_BYTES).within(self.budget)

    def refuse(self, least: Tiling, batch: int) -> None:
        """Says the least budget that would do.

        Raises:
            TileError: always.
        """
        needs = self.needs(least, batch, 1).with_cache(LEAST_CACHE_BYTES)
        on_device = self.budget.device_bytes
        option, given, needed = "--memory", self.budget.host_bytes, needs.host
        if on_device is not None and needs.device > on_device:
            option, given, needed = "--device-memory", on_device, needs.device
        window, workers = " x ".join(map(str, least.window)), self.budget.workers
        each = f" for each of {workers} workers" if workers > 1 else ""
        enough = -(-needed * workers * 11 // (10 << 24)) << 24
        raise TileError(
            f"{option} {format_size(given * workers)} is too little: the least window, {window}, needs "
            f"{format_size(needed)}{each}; give at least {option} {format_size(enough)}"
        )

    def plan(self, tiling: Tiling, batch: int) -> Plan:
        """The plan of these tiles: as many batches ahead and as much cache as the budget leaves room for."""
        ahead = AHEAD if self.needs(tiling, batch, AHEAD).with_cache(LEAST_CACHE_BYTES).within(self.budget) else 1
        needs = self.needs(tiling, batch, ahead)
        beam, cache_bytes = self.beam(tiling, (self.budget.host_bytes - needs.host) // 2)
        needs = needs.with_cache(cache_bytes)
        return Plan(
            core=tiling.core,
            window=tiling.window,
            tiles=len(tiling),
            batch=batch,
            ahead=ahead,
            beam=beam,
            cache_bytes=cache_bytes,
            threads=self.threads,
            host_bytes=needs.host,
            device_bytes=needs.device,
            seconds_per_window=self.per_tile(tiling.window, batch),
            fits=needs.within(self.budget),
        )

    def beam(self, tiling: Tiling, most_bytes: int) -> tuple[tuple[int, ...], int]:
        """The widest beam whose cross-section of decoded pieces is at most ``most_bytes``, and that cross-section."""
        across = tiling.grid[1:]
        low, high = 1, max(across, default=1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.section_bytes(tiling, middle) <= most_bytes else (low, middle - 1)
        wanted = self.section_bytes(tiling, low)
        return tuple(min(low, n) for n in across), max(LEAST_CACHE_BYTES, min(wanted, most_bytes))

    def section_bytes(self, tiling: Tiling, beam: int) -> int:
        """Decoded pieces that the windows across a beam share: as deep as a window, as wide as the beam."""
        tiles = (1, *(min(beam, n) for n in tiling.grid[1:]))
        sides = [
            min(w + (b - 1) * c, n) for w, b, c, n in zip(tiling.window, tiles, tiling.core, tiling.extent, strict=True)
        ]
        source = own_scan(self.view)
        stretch = self.finer ** (1 / len(sides))
        voxels = math.prod(n * stretch + 2 * PIECE for n in sides)
        whole = math.prod(source.shape)
        return int(min(voxels, whole) * source.channels * source.dtype.itemsize)


def choose_blend_plan(
    view: Scan,
    network: Network,
    blending: Blending,
    budget: Budget,
    *,
    batch: int | None = None,
    tta: int = 1,
    amp: bool = False,
    probabilities: bool = False,
) -> Plan:
    """The plan of sliding windows: the windows are given, the batch is the fastest that fits.

    Args as for :func:`choose_plan`. Windows are never made smaller to fit; ``fits`` tells.
    """
    slide = _Slide(view, network, budget, Forward(network, amp), tta, probabilities, blending)
    return slide.plan(batch or slide.best_batch())


@dataclass(frozen=True)
class _Slide(_Job):
    """The search for a batch of sliding windows."""

    blending: Blending

    @cached_property
    def windows(self) -> Windows:
        return Windows(self.view.shape, self.blending, spare_of(self.view))

    def needs(self, batch: int, ahead: int, hold_on_host: bool) -> _Needs:
        """What is held, the sums of one slab included."""
        roi, channels = self.blending.roi, self.network.out_channels
        sums = self.windows.held_bytes(channels, batch, ahead)
        forward = self.forward.bytes(roi, batch)
        host = self.held.host + LEAST_CACHE_BYTES + int(HOLES * self.reading(roi, batch, ahead))
        if self.device.type != "cuda":
            return _Needs(host + sums + forward)
        moved = 2 * (window_bytes(self.network, roi, batch) + logits_bytes(self.network, roi, batch))
        device = self.held.device + forward + moved
        return _Needs(host + sums, device + (0 if hold_on_host else sums))

    def best_batch(self) -> int:
        """The fastest that fits, as far as there is time to find out."""
        roi = self.blending.roi
        left = self.pays(roi, len(self.windows) * self.forward.count(roi).flops * self.tta)
        return self.doubled(roi, len(self.windows), self.fits, left)

    def fits(self, batch: int) -> bool:
        return any(self.needs(batch, 1, on_host).within(self.budget) for on_host in (False, True))

    def plan(self, batch: int) -> Plan:
        """The plan of this batch."""
        ways = [(ahead, on_host) for on_host in (False, True) for ahead in (AHEAD, 1)]
        fitting = [way for way in ways if self.needs(batch, *way).within(self.budget)]
        ahead, on_host = (fitting or ways)[0]
        needs = self.needs(batch, ahead, on_host)
        return Plan(
            core=self.windows.step,
            window=self.blending.roi,
            tiles=len(self.windows),
            batch=batch,
            ahead=ahead,
            beam=(),
            cache_bytes=LEAST_CACHE_BYTES,
            threads=self.threads,
            host_bytes=needs.host,
            device_bytes=needs.device,
            seconds_per_window=self.per_tile(self.blending.roi, batch),
            fits=bool(fitting),
            hold_on_host=on_host and self.device.type == "cuda",
        )
