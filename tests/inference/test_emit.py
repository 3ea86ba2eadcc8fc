from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg import Box, create_mask, open_scan
from medseg.inference.decode import Decoder
from medseg.inference.emit import Decided, Emitter, Output, wanted_voxels
from medseg.inference.windows import Blending, Windows
from medseg.scans.gridmap import grid_map
from medseg.scans.views import Normalized, Oriented, Resampled, Rescale

SHAPE = (9, 7, 6)


class Counting:
    """A sink that counts how often each voxel is written."""

    chunks, resumed = (1, 1, 1), True

    def __init__(self, shape, channels=()):
        self.values, self.times = np.zeros((*channels, *shape)), np.zeros(shape, int)
        self.calls = []

    def write(self, box, labels):
        self.values[(..., *box.slices)] = labels
        self.times[box.slices] += 1

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


class Turned:
    """A scan of SHAPE whose axes run to L, S and A."""

    name, axes, unit, anatomical, channels, shape, dtype = "turned", "XYZ", "mm", True, 1, SHAPE, np.dtype(np.float32)
    affine = np.array([[-1.0, 0, 0, 0], [0, 0, 1.5, 0], [0, 1.2, 0, 0], [0, 0, 0, 1]])
    spacing_mm = (1.0, 1.2, 1.5)

    def read(self, box):
        raise AssertionError("deciding needs no voxels")


VIEWS = {
    "own": lambda scan: Normalized(scan, Rescale(None, None, (0.0,), (1.0,))),
    "turned": Oriented,
    "finer": lambda scan: Resampled(Oriented(scan), (0.7, 0.9, 1.5)),
    "coarser": lambda scan: Resampled(Oriented(scan), (1.6, 2.0, 1.9)),
}


@st.composite
def cuts(draw, shape):
    """Boxes that partition a shape."""
    boxes = [Box.of(shape)]
    for axis, n in enumerate(shape):
        at = sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=3))})
        boxes = [
            Box((*b.start[:axis], x, *b.start[axis + 1 :]), (*b.stop[:axis], y, *b.stop[axis + 1 :]))
            for b in boxes
            for x, y in pairwise(at)
        ]
    return draw(st.permutations(boxes))


@given(
    data=st.data(),
    view=st.sampled_from(list(VIEWS)),
    activation=st.sampled_from(["sigmoid", "softmax"]),
    shares=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_partition_of_the_view_writes_each_wanted_voxel_once(data, view, activation, shares, seed):
    scan = VIEWS[view](Turned())
    logits = torch.from_numpy(np.random.default_rng(seed).standard_normal((3, *scan.shape)).astype(np.float32))
    start = [data.draw(st.integers(0, n - 1)) for n in SHAPE]
    part = data.draw(st.none() | st.just(Box(tuple(start), SHAPE)))
    shape = SHAPE if part is None else part.shape
    sink, likely = Counting(shape), Counting(shape, (3,)) if shares else None
    output = Output(sink, Decoder(activation), lambda classes: 10 * classes, likely, part)
    emit = Emitter(scan, output)
    windows = Windows(scan.shape, Blending((1, 1, 1)), 0 if grid_map(scan).identity else 1)
    written = 0
    for box in data.draw(cuts(scan.shape)):
        held = windows.with_spare(box)
        written += emit(box, logits[(slice(None), *held.slices)])
    # By hand: all probabilities on the file's grid, then the decision.
    decoder, own = Decoder(activation), Box.of(SHAPE) if part is None else part
    wanted = grid_map(scan).back(decoder.probabilities(logits).numpy(), (0, 0, 0), own, scan.shape)
    assert (sink.times == 1).all()
    assert (sink.values == 10 * decoder.classes_of_probabilities(torch.from_numpy(wanted)).numpy()).all()
    assert written == own.voxels * (13 if shares else 1)
    assert wanted_voxels(scan, output) == own.voxels
    if likely is not None:
        assert (likely.times == 1).all()
        assert np.abs(likely.values - wanted).max() < 1e-6


def test_what_nobody_wants_is_not_decided():
    scan = open_scan(np.zeros((1, 8, 8), np.float32))
    output = Output(create_mask(None, open_scan(np.zeros((1, 2, 2)))), part=Box((6, 6), (8, 8)))
    emit = Emitter(scan, output)
    away = Box((0, 0), (6, 8))
    assert not emit.owned(away).voxels
    assert emit.decide(away, torch.zeros(2, 6, 8)).classes is None
    assert emit(away, torch.zeros(2, 6, 8)) == 0
    with pytest.raises(ValueError, match="neither"):
        emit.put(Decided(Box((6, 6), (8, 8)), Box((6, 6), (8, 8)), None, None))


@pytest.mark.parametrize("shares", [False, True])
def test_an_output_is_all_of_its_sinks(shares):
    sinks = [Counting((2, 2)) for _ in range(1 + shares)]
    output = Output(sinks[0], probabilities=sinks[1] if shares else None)
    assert output.resumed
    sinks[-1].resumed = False
    assert not output.resumed
    output.flush()
    output.close()
    assert [sink.calls for sink in sinks] == [["flush", "close"]] * len(sinks)
