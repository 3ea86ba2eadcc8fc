"""The mean field equals one over all pairs, and tiles equal the whole."""

import math

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg import Box, open_scan
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, GridError
from medseg.postprocessing.crf import DenseCRF
from medseg.postprocessing.crf_tiles import Refinement, levels_of
from medseg.scans.scan import create_mask

SMALL = DenseCRF(sigma_alpha=3, sigma_beta=25, sigma_gamma=1, iterations=2, truncate=2, stride=2)
CELL = Labels({"background": 0, "cell": 9})


def drawn(channels, labels, *shape, seed=0):
    """An image (C, H, W) 0 to 255, and probabilities (K, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(channels, *shape, generator=generator) * 255
    return image, torch.randn(labels, *shape, generator=generator).softmax(0)


def over_all_pairs(crf, image, probabilities):
    """Mean field with a matrix of all pairs (n, n), float64: eq. 3 and algorithm 1, windows cut off alike."""
    channels, *shape = image.shape
    y, x = (torch.from_numpy(i.reshape(-1)).double() for i in np.indices(shape))
    down, right = y[:, None] - y, x[:, None] - x
    squared, flat = down**2 + right**2, image.reshape(channels, -1).double()
    apart = (flat[:, :, None] - flat[:, None]).square().sum(0)
    step, sigma = crf.step, crf.sigma_alpha
    reach = math.ceil(crf.truncate * sigma / step) * step
    seen = (down.abs() <= reach) & (right.abs() <= reach) & (down % step == 0) & (right % step == 0)
    near = torch.exp(-squared / (2 * sigma**2) - apart / (2 * crf.sigma_beta**2)) * seen
    reach = math.ceil(crf.truncate * crf.sigma_gamma)
    smooth = torch.exp(-squared / (2 * crf.sigma_gamma**2)) * ((down.abs() <= reach) & (right.abs() <= reach))
    pairs = 0
    for weight, kernel in ((crf.appearance_weight, near), (crf.smoothness_weight, smooth)):
        scale = kernel.sum(1).rsqrt()
        pairs = pairs + weight * scale[:, None] * kernel * scale
    unary = probabilities.reshape(len(probabilities), -1).double().log()
    q = unary.softmax(0)
    for _ in range(crf.iterations):
        # Potts: a label is told off by what all others are heard of
        told_off = torch.stack([sum((q @ pairs)[m] for m in range(len(q)) if m != k) for k in range(len(q))])
        q = (unary - told_off).softmax(0)
    return q.reshape(probabilities.shape)


@given(
    st.sampled_from([1, 3]),
    st.integers(2, 3),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.integers(0, 99),
)
def test_it_is_the_mean_field_over_all_pairs(channels, labels, shape, stride, truncate, seed):
    crf = DenseCRF(4, 3, 40, 3, 1.5, iterations=3, truncate=truncate, stride=stride)
    image, probabilities = drawn(channels, labels, *shape, seed=seed)
    found = crf.refine(image, probabilities)
    assert (found - over_all_pairs(crf, image, probabilities)).abs().max() < 1e-5
    assert torch.allclose(found.sum(0), torch.ones(shape))


def test_weights_that_are_not_kept_are_made_anew(monkeypatch):
    image, probabilities = drawn(1, 2, 20, 20)
    kept = SMALL.refine(image, probabilities)
    monkeypatch.setattr("medseg.postprocessing.crf.KEPT_BYTES", 4 * 20 * 20 * 3)
    assert torch.equal(SMALL.refine(image, probabilities), kept)


def test_it_follows_the_image():
    """A coarse guess at a bright square becomes the square."""
    image = torch.full((1, 40, 40), 60.0)
    image[:, 10:30, 10:30] = 180
    share = torch.full((40, 40), 0.25)
    share[12:33, 13:33] = 0.75
    crf = DenseCRF(sigma_alpha=8, sigma_gamma=1)
    found = crf.refine(image, torch.stack([1 - share, share]))
    assert torch.equal(found[1] > 0.5, image[0] > 100)


def refined(image, probabilities, labels=CELL, **how):
    """The mask of arrays (C, \\*shape) and (K, \\*shape)."""
    scan = open_scan(image)
    sink = create_mask(None, scan, dtype=labels.dtype)
    refinement = Refinement(how.pop("crf", SMALL), labels, torch.device("cpu"), **how)
    refinement.run(scan, open_scan(probabilities), sink)
    return sink.array


def shares_of(refinement, image, probabilities, monkeypatch):
    """(K, \\*shape) probabilities as the tiles decide on them."""
    scan = open_scan(image)
    found = np.zeros(probabilities.shape, np.float32)
    across = 0 if image.ndim == 4 else None
    for tile in refinement._tiles(scan.shape, across):
        found[(slice(None), *tile.slices)] = refinement._refined(scan, open_scan(probabilities), tile, across).numpy()
    return found


@pytest.mark.parametrize("tile", [5, 16, 23])
def test_tiles_with_the_exact_halo_equal_the_whole(tile, monkeypatch):
    image, probabilities = (t.numpy() for t in drawn(1, 2, 48, 41))
    whole = shares_of(Refinement(SMALL, CELL, torch.device("cpu"), 64), image, probabilities, monkeypatch)
    exact = Refinement(SMALL, CELL, torch.device("cpu"), tile, SMALL.exact_halo)
    assert np.abs(shares_of(exact, image, probabilities, monkeypatch) - whole).max() < 1e-5


def test_without_a_halo_they_do_not():
    """Else the law above would hold of anything."""
    image, probabilities = (t.numpy() for t in drawn(1, 2, 48, 41))
    whole, cut = (
        shares_of(Refinement(SMALL, CELL, torch.device("cpu"), tile, 0), image, probabilities, None)
        for tile in (64, 16)
    )
    assert np.abs(cut - whole).max() > 1e-2


def test_a_pixel_depends_on_nothing_beyond_the_exact_halo():
    side = 2 * SMALL.exact_halo + 21
    image, probabilities = drawn(1, 2, side, 9)
    changed = probabilities.clone()
    changed[:, 0] = changed[:, 0].flip(0)
    moved = image.clone()
    moved[:, 0] = 255 - moved[:, 0]
    before, after = SMALL.refine(image, probabilities), SMALL.refine(moved, changed)
    far = SMALL.exact_halo + 1
    assert torch.equal(before[:, far:], after[:, far:])
    assert not torch.allclose(before[:, 0], after[:, 0])


def test_planes_of_a_stack_are_refined_each_on_its_own():
    image, probabilities = (
        torch.stack(t, 1).numpy() for t in zip(*(drawn(1, 2, 12, 10, seed=s) for s in range(3)), strict=True)
    )
    found = refined(image, probabilities)
    for z in range(3):
        np.testing.assert_array_equal(found[z], refined(image[:, z], probabilities[:, z]))


@pytest.mark.parametrize(("channels", "labels"), [(1, 1), (2, 2)])
def test_sigmoid_channels_are_refined_each_against_its_own_background(channels, labels):
    names = Labels({"background": 0} | {f"label{n}": n for n in range(1, labels + 1)})
    image, shares = drawn(1, 2, 15, 13)
    shares = shares[:channels] * torch.tensor([0.9, 0.8])[:channels, None, None]
    found = refined(image.numpy(), shares.numpy(), names)
    fields = torch.stack([SMALL.refine(image, torch.stack([1 - s, s]))[1] for s in shares])
    best, channel = fields.max(0)
    np.testing.assert_array_equal(found, torch.where(best >= 0.5, channel + 1, 0).numpy())


def test_bytes_are_levels_and_other_types_are_brought_between_0_and_255(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (30, 30)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values)
    tifffile.imwrite(tmp_path / "b.tif", values.astype(np.float32) * 7 - 1000)
    box = Box.of(values.shape)
    assert levels_of(open_scan(tmp_path / "a.tif")).dtype == np.uint8
    found = levels_of(open_scan(tmp_path / "b.tif")).read(box)[0]
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose(found, (values.clip(low, high) - low) * 255 / (high - low), atol=1e-2)


def test_a_constant_image_changes_nothing_but_smoothness():
    assert np.isfinite(refined(np.full((1, 9, 9), 7.0, np.float32), drawn(1, 2, 9, 9)[1].numpy())).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma_alpha": 0},
        {"sigma_beta": -1},
        {"iterations": 0},
        {"stride": 0},
        {"truncate": 0},
        {"smoothness_weight": -1},
    ],
)
def test_parameters_that_are_none_are_told(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DenseCRF(**wrong)


def test_probabilities_of_other_channels_or_another_grid_are_refused():
    image, probabilities = (t.numpy() for t in drawn(1, 4, 9, 9))
    with pytest.raises(
        GridError, match=r"4 channels and the masks 1 foreground labels.* 1 \(sigmoid\) or 2 \(softmax\)"
    ):
        refined(image, probabilities)
    with pytest.raises(GridError, match="different shapes"):
        refined(image[:, 1:], probabilities[:2])
