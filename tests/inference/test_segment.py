import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import Box, MedsegError, Tiling, build_network, create_mask, open_scan, segment
from medseg.inference.decode import Decoder
from medseg.inference.emit import Output
from medseg.inference.journal import Journal, Terms
from medseg.inference.segment import Pace, prepare
from medseg.inference.window import cheapest_core, choose_tiling
from medseg.scans.gridmap import grid_map
from medseg.scans.mirror import read_mirrored
from medseg.scans.preprocessing import Preprocessing


def network(dims=2, padding="valid", depth=1, norm="batch", outputs=2, seed=0):
    torch.manual_seed(seed)
    spec = {"name": "unet", "dims": dims, "depth": depth, "width": 2, "padding": padding, "norm": norm}
    return prepare(build_network({**spec, "in_channels": 1, "out_channels": outputs}), torch.device("cpu"))


def noise(*shape, seed=0):
    return open_scan(np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32))


def by_hand(scan, net, activation):
    """Probabilities (K, *shape) of the whole scan in one pass, without the loop."""
    tile = Tiling.whole(scan.shape, net.footprint)[0]
    with torch.inference_mode():
        logits = net.core(torch.from_numpy(read_mirrored(scan, tile.read))[None])[0]
    return Decoder(activation).probabilities(logits[(slice(None), *tile.keep.slices)]).numpy()


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    core=st.integers(1, 40),
    batch=st.integers(1, 4),
    beam=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
    activation=st.sampled_from(["sigmoid", "softmax"]),
)
def test_the_loop_is_one_pass_over_the_whole(shape, core, batch, beam, padding, activation):
    scan, net = noise(*shape), network(padding=padding)
    mask, shares = create_mask(None, scan), create_mask(None, scan, dtype=np.float32, channels=2)
    output = Output(mask, Decoder(activation), None, shares)
    tiling = Tiling(shape, (core, core), net.footprint)
    progress = segment(scan, net, tiling, output, pace=Pace(batch, beam=(beam,)))
    wanted = by_hand(scan, net, activation)
    assert np.abs(shares.array - wanted).max() < 1e-5
    sure = np.abs(wanted[0] - wanted[1]) > 1e-4
    if activation == "sigmoid":
        sure &= (np.abs(wanted - 0.5) > 1e-4).all(0)
    classes = Decoder(activation).classes_of_probabilities(torch.from_numpy(wanted)).numpy()
    assert (mask.array == classes)[sure].all()
    assert progress.done == progress.tiles == len(tiling)


class OrientedArray:
    """An array that says how the patient lies."""

    def __init__(self, array, affine):
        self.array, self.affine = array, affine
        self.name, self.axes, self.unit, self.anatomical = "array", "XYZ", "mm", True
        self.channels, self.shape, self.dtype = array.shape[0], array.shape[1:], array.dtype
        self.spacing_mm = tuple(np.linalg.norm(affine[:3, :3], axis=0))

    def read(self, box):
        return self.array[(slice(None), *box.slices)].copy()


@settings(max_examples=6)
@given(
    core=st.integers(4, 20),
    seed=st.integers(0, 99),
    spacing=st.sampled_from([None, [1.0, 1.3, 2.0], [2.5, 1.0, 0.8]]),
)
def test_turned_and_resampled_scans_come_back_to_their_own_grid(core, seed, spacing):
    """Tile by tile equals: the whole view in one pass, its probabilities interpolated back at once."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, 1.2, -2.0])[:, rng.permutation(3)]
    scan = OrientedArray(rng.standard_normal((1, 14, 11, 9)).astype(np.float32), affine)
    net = network(dims=3)
    view = Preprocessing(spacing_mm=spacing).view(scan)
    mask, shares = create_mask(None, scan), create_mask(None, scan, dtype=np.float32, channels=2)
    tiling = Tiling(view.shape, (core,) * 3, net.footprint, spare=1)
    segment(view, net, tiling, Output(mask, Decoder("softmax"), None, shares))
    wanted = grid_map(view).back(by_hand(view, net, "softmax"), (0, 0, 0), Box.of(scan.shape), view.shape)
    assert np.abs(shares.array - wanted).max() < 1e-5
    assert (mask.array == wanted.argmax(0))[np.abs(wanted[0] - wanted[1]) > 1e-4].all()


class Breaking:
    """A sink that breaks after some writes, as a kill would."""

    def __init__(self, sink, writes):
        self.sink, self.left, self.chunks = sink, writes, sink.chunks

    def write(self, box, labels):
        if self.left == 0:
            raise InterruptedError
        self.left -= 1
        self.sink.write(box, labels)

    def flush(self):
        self.sink.flush()

    def close(self):
        self.sink.close()


@settings(max_examples=10)
@given(stops=st.lists(st.integers(0, 6), max_size=3), batch=st.integers(1, 3))
def test_interrupted_is_uninterrupted(tmp_path_factory, stops, batch):
    scan, net = noise(50, 44), network()
    tiling = Tiling(scan.shape, (16, 16), net.footprint)
    whole = create_mask(None, scan)
    segment(scan, net, tiling, whole, pace=Pace(batch))
    mask = create_mask(None, scan)
    path = tmp_path_factory.mktemp("j") / "journal"
    terms = Terms("d", {"batch": batch})
    for writes in stops:
        with Journal(path, terms) as journal:
            if len(journal.done) == len(tiling):
                break
            if writes < len(tiling) - len(journal.done):
                with pytest.raises(InterruptedError):
                    segment(scan, net, tiling, Breaking(mask, writes), journal, Pace(batch))
    with Journal(path, terms) as journal:
        before = len(journal.done)
        progress = segment(scan, net, tiling, mask, journal, Pace(batch))
        assert progress.done == len(tiling)
        assert before % batch in (0, len(tiling) % batch)
    assert (mask.array == whole.array).all()


def test_nothing_is_read_that_is_done(tmp_path):
    scan, net = noise(40, 40), network()
    tiling = Tiling(scan.shape, (16, 16), net.footprint)
    terms = Terms("d", {})
    with Journal(tmp_path / "j", terms) as journal:
        journal.record(range(len(tiling)))
    scan.read = None
    with Journal(tmp_path / "j", terms) as journal:
        segment(scan, net, tiling, create_mask(None, noise(40, 40)), journal)


def test_nan_and_wrong_channels_are_refused():
    net = network()
    spoiled = np.zeros((1, 30, 30), np.float32)
    spoiled[0, 7, 9] = np.nan
    scan = open_scan(spoiled)
    with pytest.raises(MedsegError, match=r"has nan at \(0, 7, 9\)"):
        segment(scan, net, Tiling(scan.shape, (16, 16), net.footprint), create_mask(None, scan))
    colour = open_scan(np.zeros((3, 30, 30), np.float32))
    with pytest.raises(MedsegError, match=r"3 channels and 2 axes.*takes 1 channels"):
        segment(colour, net, Tiling(colour.shape, (16, 16), net.footprint), create_mask(None, colour))


@given(st.integers(1, 3000), st.integers(0, 1))
def test_the_cheapest_core_computes_no_more_than_any_other(extent, spare):
    footprint = network(depth=4).footprint
    (core, _) = cheapest_core((extent, 16), footprint, spare)
    chosen = Tiling((extent, 16), (core, 16), footprint, spare)
    for other in range(16, 512, 16):
        tiling = Tiling((extent, 16), (other, 16), footprint, spare)
        if tiling.window[0] <= 700:
            assert chosen.grid[0] * chosen.window[0] <= tiling.grid[0] * tiling.window[0]


def test_a_network_over_its_window_is_run_whole():
    scan, net = noise(40, 30), network(norm="instance", padding="same")
    assert len(choose_tiling(scan, net)) == 1
    with pytest.raises(MedsegError, match="looks at its whole window"):
        choose_tiling(scan, net, (48,))


def test_memory_layout_belongs_to_the_loop():
    net = network(depth=2)
    assert net.contracting[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net.training
