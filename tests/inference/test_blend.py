from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from medseg import Box, MedsegError, build_network, create_mask, open_scan
from medseg.inference import blend as module
from medseg.inference.blend import blend, pieces_of
from medseg.inference.decode import Decoder
from medseg.inference.emit import Output
from medseg.inference.segment import Pace, prepare
from medseg.inference.windows import Blending, Windows
from medseg.networks.network import Network
from medseg.scans.gridmap import grid_map
from medseg.scans.preprocessing import Preprocessing


def network(dims=2, padding="same", norm="batch", seed=0):
    torch.manual_seed(seed)
    spec = {"name": "unet", "dims": dims, "depth": 1, "width": 2, "padding": padding, "norm": norm}
    return prepare(build_network({**spec, "in_channels": 1, "out_channels": 2}), torch.device("cpu"))


def noise(*shape, seed=0):
    return open_scan(np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32))


def by_monai(view, net, blending, batch=1):
    """(K, \\*shape) logits of the whole view."""
    # PyTorch mirrors once at the most, so that NumPy pads, by what MONAI would.
    less = [max(r - n, 0) for r, n in zip(blending.roi, view.shape, strict=True)]
    around = [(0, 0), *((n // 2, n - n // 2) for n in less)]
    mode = {"mirror": "reflect", "zeros": "constant"}[blending.padding]
    whole = torch.from_numpy(np.pad(view.read(Box.of(view.shape)), around, mode))[None]
    about = {"mode": blending.mode, "sigma_scale": blending.sigma_scale}
    with torch.inference_mode():
        found = sliding_window_inference(whole, blending.roi, batch, net, blending.overlap, **about)[0].numpy()
    return found[(slice(None), *(slice(a, a + n) for (a, _), n in zip(around[1:], view.shape, strict=True)))]


class Collector:
    """Takes the place of the emitter: puts the logits of each voxel together, once."""

    def __init__(self, scan, spare=0):
        self.logits = np.full((2, *scan.shape), np.nan, np.float32)
        self.shape, self.spare, self.largest = scan.shape, spare, 0

    def __call__(self, scan, output):
        return self

    def decide(self, write, logits):
        needed = tuple(min(b + self.spare, n) - a for a, b, n in zip(write.start, write.stop, self.shape, strict=True))
        assert logits.shape[1:] == needed
        self.largest = max(self.largest, logits.untyped_storage().nbytes() // 4)
        return write, logits[(slice(None), *Box.of(write.shape).slices)]

    def put(self, decided):
        write, logits = decided
        assert np.isnan(self.logits[(slice(None), *write.slices)]).all()
        self.logits[(slice(None), *write.slices)] = logits
        return 0


def collected(scan, net, blending, pace=None, pieces=2**23):
    found = Collector(scan)
    with mock.patch.object(module, "Emitter", found), mock.patch.object(module, "PIECE_VALUES", pieces):
        progress = blend(scan, net, blending, create_mask(None, scan), pace=pace)
    assert progress.done == progress.tiles == len(Windows(scan.shape, blending))
    return found


@st.composite
def blendings(draw, dims=2, most=24):
    roi = tuple(2 * draw(st.integers(1, most // 2)) for _ in range(dims))
    share = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9])
    overlap = draw(share | st.tuples(*[share] * dims))
    mode, padding = draw(st.sampled_from(["gaussian", "constant"])), draw(st.sampled_from(["mirror", "zeros"]))
    return Blending(roi, overlap, mode, draw(st.sampled_from([0.125, 0.3])), padding)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    blending=blendings(),
    pace=st.builds(Pace, batch=st.integers(1, 5), ahead=st.integers(1, 3)),
    pieces=st.integers(1, 2000),
)
def test_it_is_sliding_window_inference_on_the_whole(shape, blending, pace, pieces):
    scan, net = noise(*shape), network()
    assume(len(Windows(shape, blending)) < 300)
    found = collected(scan, net, blending, pace, pieces)
    assert np.abs(found.logits - by_monai(scan, net, blending, pace.batch)).max() < 1e-5


@settings(max_examples=6)
@given(
    shape=st.tuples(*[st.integers(1, 22)] * 3),
    blending=blendings(3, 12),
    norm=st.sampled_from(["batch", "instance"]),
)
def test_so_it_is_in_3d_and_for_networks_over_their_window(shape, blending, norm):
    scan, net = noise(*shape), network(3, norm=norm)
    assume(len(Windows(shape, blending)) < 100)
    wanted = by_monai(scan, net, blending)
    assert np.abs(collected(scan, net, blending).logits - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())


@given(blendings(3, 40))
def test_weights_are_monais(blending):
    wanted = compute_importance_map(blending.roi, blending.mode, blending.sigma_scale)
    assert torch.equal(blending.weights(), wanted)


class Looks(Network):
    """Logits that depend on nothing but the voxel, so that windows cost nothing."""

    def __init__(self, dims):
        super().__init__(dims, 1, 2)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def trace(self, field, axis):
        return field

    def forward(self, x):
        return torch.cat([x, -x], 1) * self.scale


def test_what_is_held_does_not_grow_with_the_slab_axis():
    blending, held, largest = Blending((8, 6)), set(), set()
    for n in (100, 500, 2000):
        scan, windows = noise(20, n), Windows((20, n), blending)
        held.add((windows.held, windows.held_bytes(2, 8)))
        largest.add(collected(scan, Looks(2), blending, Pace(8)).largest)
    sums, waiting = 3 * 20 * 6, 2 * 20 * (6 + (3 * 2 - 1) * 3)
    assert held == {((20, 6), 4 * (sums + waiting))}
    assert largest == {2 * 20 * 6}


class Oriented:
    """An array that says how the patient lies."""

    def __init__(self, array, affine):
        self.array, self.affine = array, affine
        self.name, self.axes, self.unit, self.anatomical = "array", "XYZ", "mm", True
        self.channels, self.shape, self.dtype = array.shape[0], array.shape[1:], array.dtype
        self.spacing_mm = tuple(np.linalg.norm(affine[:3, :3], axis=0))

    def read(self, box):
        return self.array[(slice(None), *box.slices)].copy()


def turned(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, 1.2, -2.0])[:, rng.permutation(3)]
    return Oriented(rng.standard_normal((1, 14, 11, 9)).astype(np.float32), affine)


@settings(max_examples=8)
@given(
    blending=blendings(3, 12),
    seed=st.integers(0, 99),
    spacing=st.sampled_from([None, [1.0, 1.3, 2.0], [2.5, 1.0, 0.8]]),
    part=st.sampled_from([None, Box((3, 2, 0), (9, 11, 4))]),
    pieces=st.sampled_from([400, 2**23]),
)
def test_turned_and_resampled_scans_come_back_to_their_own_grid(blending, seed, spacing, part, pieces):
    """It equals the whole view's probabilities interpolated back at once."""
    scan, net = turned(seed), network(3)
    view = Preprocessing(spacing_mm=spacing).view(scan)
    assume(len(Windows(view.shape, blending)) < 60)
    logits = torch.from_numpy(by_monai(view, net, blending))
    box = part or Box.of(scan.shape)
    wanted = grid_map(view).back(Decoder().probabilities(logits).numpy(), (0, 0, 0), box, view.shape)
    like = noise(*box.shape)
    mask, shares = create_mask(None, like), create_mask(None, like, dtype=np.float32, channels=2)
    with mock.patch.object(module, "PIECE_VALUES", pieces):
        blend(view, net, blending, Output(mask, Decoder(), None, shares, part))
    assert np.abs(shares.array - wanted).max() < 1e-5
    assert (mask.array == wanted.argmax(0))[np.abs(wanted[0] - wanted[1]) > 1e-4].all()


class Notes:
    """A journal that breaks after some records, as a kill would."""

    def __init__(self, done=(), left=10**6):
        self.done, self.left, self.noted = frozenset(done), left, set(done)

    def record(self, slabs):
        if self.left == 0:
            raise InterruptedError
        self.left -= 1
        self.noted.update(slabs)


def outputs(scan, part=None):
    like = scan if part is None else noise(*part.shape)
    return Output(create_mask(None, like), Decoder(), None, create_mask(None, like, dtype=np.float32, channels=2), part)


@settings(max_examples=15)
@given(
    shape=st.sampled_from([(13, 60), (40, 22)]),
    blending=blendings(2, 14),
    batch=st.integers(1, 4),
    stops=st.lists(st.integers(0, 4), max_size=3),
    lost=st.sets(st.integers(0, 12)),
)
def test_interrupted_is_uninterrupted_to_the_byte(shape, blending, batch, stops, lost):
    scan, net, pace = noise(*shape), network(), Pace(batch)
    windows = Windows(shape, blending)
    assume(len(windows) < 100)
    whole, output = outputs(scan), outputs(scan)
    blend(scan, net, blending, whole, pace=pace)
    done = set()
    for left in stops:
        journal = Notes(done, left)
        if left < windows.slabs - len(done):
            with pytest.raises(InterruptedError):
                blend(scan, net, blending, output, journal, pace)
            done = journal.noted
    done -= lost
    progress = blend(scan, net, blending, output, journal := Notes(done), pace)
    assert journal.noted == set(range(windows.slabs)) and progress.done == progress.tiles == len(windows)
    assert output.probabilities.array.tobytes() == whole.probabilities.array.tobytes()
    assert output.sink.array.tobytes() == whole.sink.array.tobytes()


@settings(max_examples=15)
@given(
    blending=blendings(2, 14),
    batch=st.integers(1, 3),
    corners=st.tuples(*[st.tuples(st.integers(0, 29), st.integers(1, 30))] * 2),
)
def test_a_part_is_that_part_of_the_whole(blending, batch, corners):
    scan, net = noise(30, 44), network()
    windows = Windows(scan.shape, blending)
    assume(len(windows) < 100)
    part = Box(
        tuple(a for a, _ in corners), tuple(min(a + n, e) for (a, n), e in zip(corners, scan.shape, strict=True))
    )
    whole, output = outputs(scan), outputs(scan, part)
    blend(scan, net, blending, whole, pace=Pace(batch))
    progress = blend(scan, net, blending, output, pace=Pace(batch))
    found, wanted = output.probabilities.array, whole.probabilities.array[(slice(None), *part.slices)]
    assert np.abs(found - wanted).max() < 1e-6
    assert (output.sink.array == whole.sink.array[part.slices])[np.abs(wanted[0] - 0.5) > 1e-6].all()
    boxes = [windows[i].box for i in range(len(windows))]
    touching = [b for b in boxes if overlap(b, part)]
    assert progress.tiles == progress.done == len(touching)


def overlap(box, other):
    sides = zip(box.start, box.stop, other.start, other.stop, strict=True)
    return all(max(a, c) < min(b, d) for a, b, c, d in sides)


def test_spans_of_slabs_make_the_whole_together():
    scan, net, blending = noise(50, 20), network(), Blending((12, 8))
    whole, output = outputs(scan), outputs(scan)
    blend(scan, net, blending, whole, pace=Pace(2))
    slabs = Windows(scan.shape, blending).slabs
    for span in (range(slabs // 2, slabs), range(0), range(slabs // 2)):
        blend(scan, net, blending, output, pace=Pace(2, span=span))
    assert output.probabilities.array.tobytes() == whole.probabilities.array.tobytes()


def test_nothing_is_read_that_is_done():
    scan, blending = noise(40, 40), Blending((8, 8))
    scan.read = None
    blend(scan, network(), blending, create_mask(None, scan), Notes(range(Windows((40, 40), blending).slabs)))


@given(
    box=st.tuples(*[st.tuples(st.integers(0, 40), st.integers(0, 30))] * 2),
    unit=st.tuples(*[st.integers(1, 9)] * 2),
    most=st.integers(1, 500),
    origin=st.tuples(*[st.integers(0, 40)] * 2),
)
def test_pieces_partition_a_slab_along_chunks(box, unit, most, origin):
    box = Box(tuple(a for a, _ in box), tuple(a + n for a, n in box))
    origin = tuple(min(o, a) for o, a in zip(origin, box.start, strict=True))
    shape = module._piece_shape(box.shape, unit, most)
    count = np.zeros(box.stop, int)
    for piece in pieces_of(box, shape, origin):
        assert 0 < piece.voxels <= most
        count[piece.slices] += 1
        for a, u in enumerate(unit):
            if shape[a] % u == 0 and piece.start[a] > box.start[a]:
                assert (piece.start[a] - origin[a]) % u == 0
    assert count.sum() == box.voxels and count.max(initial=0) <= 1


def test_what_cannot_be_blended_is_refused():
    scan = noise(40, 40)
    with pytest.raises(MedsegError, match=r"answers for \(8, 8\) of a window of \(24, 24\).*valid"):
        blend(scan, network(padding="valid"), Blending((24, 24)), create_mask(None, scan))
    with pytest.raises(MedsegError, match="try 22 or 24"):
        blend(scan, network(), Blending((23, 24)), create_mask(None, scan))
    with pytest.raises(MedsegError, match="axes"):
        blend(scan, network(), Blending((24, 24, 24)), create_mask(None, scan))
    spoiled = np.zeros((1, 30, 30), np.float32)
    spoiled[0, 7, 9] = np.inf
    with pytest.raises(MedsegError, match=r"has inf at \(0, 7, 9\)"):
        blend(open_scan(spoiled), network(), Blending((8, 8)), create_mask(None, open_scan(spoiled)))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"roi": (0, 8)}, "roi"),
        ({"roi": ()}, "roi"),
        ({"roi": (8.5, 8)}, "roi"),
        ({"roi": (8, 8), "overlap": 1.0}, "overlap 1.0"),
        ({"roi": (8, 8), "overlap": (0.5,)}, "overlap"),
        ({"roi": (8, 8), "mode": "gausian"}, "did you mean 'gaussian'"),
        ({"roi": (8, 8), "sigma_scale": 0}, "sigma_scale 0"),
        ({"roi": (8, 8), "sigma": 1}, "keys"),
        ({}, "keys"),
    ],
)
def test_bad_blendings_are_refused(values, complaint):
    with pytest.raises(MedsegError, match=complaint):
        Blending.from_dict(values)


@given(blendings(3))
def test_a_blending_survives_json(blending):
    assert Blending.from_dict(blending.to_dict()) == blending
