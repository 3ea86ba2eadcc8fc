import json
import math
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import MedsegError, Tiling, build_network
from medseg.inference import cost, plan
from medseg.inference.budget import Budget, format_size, parse_size
from medseg.inference.cost import Sample, count_forward
from medseg.inference.plan import Plan, choose_blend_plan, choose_plan, overhead
from medseg.inference.segment import prepare
from medseg.inference.window import cheapest_core
from medseg.inference.windows import Blending, Windows
from medseg.scans.preprocessing import Preprocessing

HELD = 300 << 20
"""What the process holds in these tests."""
RATE = 1e10
UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True)
class Blank:
    """A scan that nobody reads."""

    shape: tuple[int, ...]
    channels: int = 1
    dtype: np.dtype = UINT8
    anatomical: bool = False
    name: str = "blank"
    unit: str = "mm"

    @property
    def axes(self):
        return "XYZ"[: len(self.shape)]

    @property
    def spacing_mm(self):
        return (1.0,) * len(self.shape)

    @property
    def affine(self):
        return np.eye(4)


def network(dims=2, depth=2, **more):
    spec = {"name": "unet", "dims": dims, "depth": depth, "width": 4, "in_channels": 1, "out_channels": 2}
    return prepare(build_network({**spec, **more}), torch.device("cpu"))


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine whose figures are known; returns the passes that were timed."""
    timed = []

    def measure(net, window, batch=1, amp=False):
        count = count_forward(net, window, batch)
        cache_miss = 1 + max(0.0, math.log2(math.prod(window) / 300**2))
        timed.append(count.flops / RATE * cache_miss)
        return Sample(timed[-1], count.bytes)

    monkeypatch.setattr(plan, "resident_bytes", lambda: HELD)
    monkeypatch.setattr(cost, "measure_forward", measure)
    return timed


@given(st.integers(1, 10**15))
def test_a_size_is_read_as_it_is_written(size):
    assert size <= parse_size(format_size(size)) <= 1.11 * size
    assert parse_size(f"{size}") == size


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("500MB", 500 * 10**6), ("1.5 g", 3 << 29), ("7 kb", 7000), ("9B", 9)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3MB", "2 GiBs", "much", "1e9", "2 2MB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(MedsegError, match="is no size"):
        parse_size(text)


@settings(max_examples=20)
@given(
    side=st.integers(1, 3000), room=st.integers(0, 600 << 20), batch=st.sampled_from([None, 1, 3]), shares=st.booleans()
)
def test_a_plan_fits_or_says_the_least_that_would(side, room, batch, shares):
    view, net = Blank((side, 500)), network()
    try:
        chosen = choose_plan(view, net, Budget(HELD + room), batch=batch, probabilities=shares)
    except MedsegError as error:
        least = parse_size(re.search(r"give at least --memory (\S+)", str(error))[1])
        assert least > HELD + room
        chosen = choose_plan(view, net, Budget(least), batch=batch, probabilities=shares)
        room = least - HELD
    assert chosen.fits
    assert chosen.host_bytes <= HELD + room
    assert chosen.batch == batch if batch else chosen.batch >= 1
    tiling = chosen.tiling(view, net)
    assert (tiling.core, tiling.window, len(tiling)) == (chosen.core, chosen.window, chosen.tiles)


def test_a_short_job_takes_the_usual_tiles_and_times_nothing(machine):
    view, net = Blank((500, 400)), network()
    chosen = choose_plan(view, net, Budget(8 << 30))
    assert chosen.core == cheapest_core(view.shape, net.footprint)
    assert chosen.seconds is None
    assert sum(machine) < 0.01


@settings(max_examples=2)
@given(st.integers(20000, 60000), st.integers(9, 12))
def test_a_long_job_takes_the_fastest_of_what_was_timed_in_little_time(side, power):
    view, net = Blank((side, side)), network()
    timed = {}

    class Noted(plan.Forward):
        def measure(self, window, batch=1):
            timed[tuple(window), batch] = super().measure(window, batch).seconds
            return super().measure(window, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "Forward", Noted)
        chosen = choose_plan(view, net, Budget(HELD + (1 << (20 + power))), batch=1)
    for window, _ in timed:
        tiling = Tiling.by_window(view.shape, window, net.footprint)
        assert chosen.seconds <= len(tiling) * timed[window, 1] * (1 + 1e-9)
    spent = sum(map(cost.timing_seconds, timed.values()))
    assert spent <= min(plan.MOST_SECONDS + 1, 2 * plan.SHARE_OF_TIME * chosen.seconds)
    assert len(timed) > 2


def test_batches_are_doubled_while_that_is_faster(monkeypatch):
    def measure(net, window, batch=1, amp=False):
        return Sample(count_forward(net, window, batch).flops / RATE / min(batch, 8) + 1e-3, None)

    monkeypatch.setattr(cost, "measure_forward", measure)
    view, net = Blank((60000, 60000)), network()
    assert choose_plan(view, net, Budget(16 << 30), window=(700,)).batch >= 8
    tight = choose_plan(view, net, Budget(HELD + (600 << 20)), window=(700,))
    assert tight.fits
    assert tight.batch < choose_plan(view, net, Budget(16 << 30), window=(700,)).batch
    blending = Blending((256, 256))
    assert choose_blend_plan(view, network(padding="same"), blending, Budget(160 << 30)).batch >= 8


def test_what_a_user_says_is_obeyed():
    view, net = Blank((900, 900)), network()
    chosen = choose_plan(view, net, Budget(HELD + 1), window=(308,), batch=4)
    assert (chosen.window, chosen.batch, chosen.fits) == ((308, 308), 4, False)
    assert choose_plan(view, net, Budget(8 << 30), window=(308,), batch=4).fits
    whole = choose_plan(view, net, Budget(8 << 30), whole=True)
    assert (whole.tiles, whole.fits) == (1, True)
    over_window = network(norm="instance", padding="same")
    assert choose_plan(view, over_window, Budget(8 << 30)).tiles == 1
    with pytest.raises(MedsegError, match="not admissible"):
        choose_plan(view, net, Budget(8 << 30), window=(309,))


def test_a_plan_is_kept_as_json():
    chosen = choose_plan(Blank((300, 200)), network(), Budget(8 << 30))
    kept = json.loads(json.dumps(chosen.to_dict()))
    assert Plan.from_dict(kept) == chosen
    assert Plan.from_dict(replace(chosen, seconds_per_window=0.25).to_dict()).seconds == 0.25 * chosen.tiles
    with pytest.raises(MedsegError, match="a plan has the keys"):
        Plan.from_dict({"core": [16, 16]})


@settings(max_examples=15)
@given(st.integers(0, 2000), st.tuples(*(st.integers(50, 3000),) * 3))
def test_the_beam_is_as_wide_as_the_cache_holds(room, shape):
    view, net = Blank(shape), network(3, depth=1)
    chosen = choose_plan(view, net, Budget(HELD + (700 << 20) + (room << 20)), window=(52,), batch=1)
    grid = chosen.tiling(view, net).grid
    assert len(chosen.beam) == 2
    assert all(1 <= b <= n for b, n in zip(chosen.beam, grid[1:], strict=True))
    section = chosen.beam[0] * chosen.beam[1] * math.prod(chosen.core[1:]) * chosen.window[0]
    assert min(section, math.prod(shape)) <= chosen.cache_bytes or max(chosen.beam) == 1


def test_another_grid_takes_a_spare_voxel_and_more_memory():
    scan, net = Blank((400, 400)), network()
    view = Preprocessing(spacing_mm=[2.0, 2.0]).grid(scan)
    seen, same = (choose_plan(v, net, Budget(8 << 30), window=(124,), batch=1) for v in (view, Blank((200, 200))))
    assert seen.window == same.window
    assert seen.core[0] < same.core[0] + 1
    assert seen.host_bytes > same.host_bytes


@given(st.tuples(st.integers(1, 900), st.integers(1, 900)), st.integers(1, 300))
def test_overhead_is_windows_over_extent(extent, core):
    tiling = Tiling(extent, (core, core), network().footprint)
    read = sum(tile.read.voxels for tile in tiling) if len(tiling) < 500 else len(tiling) * tiling[0].read.voxels
    assert overhead(tiling) == pytest.approx(read / math.prod(extent))


def test_sliding_windows_hold_one_slab():
    net, blending = network(3, padding="same"), Blending((32, 32, 32), 0.25)
    short, long = (
        choose_blend_plan(Blank((n, 200, 200)), net, blending, Budget(8 << 30), batch=1) for n in (300, 3000)
    )
    assert short.fits and long.fits
    assert long.host_bytes == short.host_bytes
    assert long.tiles == len(Windows((3000, 200, 200), blending))
    assert not choose_blend_plan(Blank((300, 200, 200)), net, blending, Budget(HELD), batch=2).fits
    assert Plan.from_dict(long.to_dict()) == long
