"""Phantoms are the same bytes every time, can be rendered by parts, and are no task for a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import threshold_otsu

from medseg.datasets.cases import digest
from medseg.datasets.cells2d import Cells2d
from medseg.datasets.checks.finding import Expected
from medseg.datasets.checks.run import check_dataset
from medseg.datasets.layouts import find_cases, open_dataset, read_dataset
from medseg.datasets.organs3d import KIDNEY, LIVER, SPLEEN, VESSEL, Grid, Organs3d
from medseg.datasets.phantom import CELL_LABELS, FORMATS, ORGAN_LABELS, phantom_case, write_phantom
from medseg.errors import MedsegError, OutputError
from medseg.geometry import Box
from medseg.scans.scan import open_scan


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.tuples(st.integers(0, 99), st.integers(1, 40))] * 2))
def test_cells_are_cut_from_one_plane(seed: int, sides: tuple[tuple[int, int], ...]) -> None:
    box = Box([a for a, _ in sides], [a + n for a, n in sides])
    cells = Cells2d(seed)
    whole, part = cells.render(Box.of((150, 150))), cells.render(box)
    assert abs(whole[0][box.slices].astype(int) - part[0]).max() <= 1
    np.testing.assert_array_equal(whole[1][box.slices], part[1])


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.tuples(st.integers(0, 20), st.integers(1, 16))] * 3))
def test_organs_are_cut_from_one_body(seed: int, sides: tuple[tuple[int, int], ...]) -> None:
    box = Box([a for a, _ in sides], [a + n for a, n in sides])
    organs = Organs3d(seed, Grid((36, 40, 37)))
    whole, part = organs.render(Box.of(organs.grid.shape)), organs.render(box)
    assert abs(whole[0][box.slices].astype(int) - part[0]).max() <= 1
    np.testing.assert_array_equal(whole[1][box.slices], part[1])


@pytest.mark.parametrize(("size", "seeds"), [(128, 16), (256, 8), (512, 3)])
def test_otsu_fails_on_cells(size: int, seeds: int) -> None:
    for seed in range(seeds):
        image, membrane = phantom_case("cells2d", (size, size), seed, 0).scene.render(Box.of((size, size)))
        dark = image <= threshold_otsu(image)
        assert 2 * (dark & membrane).sum() / (dark.sum() + membrane.sum()) < 0.6


def test_cells_touch_and_their_membranes_are_thin_and_mostly_dark() -> None:
    image, membrane = Cells2d(3).render(Box.of((512, 512)))
    assert 0.1 < membrane.mean() < 0.3
    assert ndimage.label(~membrane)[1] > 20
    assert 2.5 <= ndimage.distance_transform_edt(membrane).max() < 12
    near = ndimage.binary_dilation(membrane, iterations=3) & ~membrane
    contrast = ndimage.gaussian_filter(image.astype(float), 1)
    assert contrast[membrane].mean() < contrast[near].mean() - 20


@pytest.mark.parametrize("seed", range(3))
def test_every_organ_is_there_at_its_density(seed: int) -> None:
    organs = Organs3d(seed, Grid((72, 56, 40)))
    image, labels = organs.render(Box.of(organs.grid.shape))
    means = {label: image[labels == label].mean() for label in (LIVER, KIDNEY, SPLEEN, VESSEL)}
    assert 70 < means[LIVER] < 120 and means[LIVER] < means[KIDNEY] < 180
    assert (labels == LIVER).sum() > 4 * (labels == KIDNEY).sum() > 0
    assert 0 < (labels == VESSEL).mean() < 0.02 and 0 < (labels == SPLEEN).mean() < 0.02
    assert image.min() < -900 and image.max() > 300


def test_organs_lie_in_the_same_places_whatever_the_voxel_order() -> None:
    ras, lps = (Organs3d(1, Grid((40, 32, 24), signs)) for signs in ((1, 1, 1), (-1, -1, 1)))
    box = Box.of((40, 32, 24))
    np.testing.assert_array_equal(ras.render(box)[1], lps.render(box)[1][::-1, ::-1])
    right = ras.render(box)[1][20:]
    assert (right == LIVER).sum() > 0.7 * (ras.render(box)[1] == LIVER).sum()
    voxel = np.array([3, 5, 7, 1])
    flipped = np.array([36, 26, 7, 1])
    np.testing.assert_allclose(ras.grid.affine @ voxel, lps.grid.affine @ flipped)


@pytest.mark.parametrize(
    ("kind", "suffix"), [(kind, suffix) for kind, suffixes in FORMATS.items() for suffix in suffixes]
)
def test_a_phantom_is_a_data_set(kind: str, suffix: str, tmp_path: Path) -> None:
    size = (48, 40) if kind == "cells2d" else (24, 20, 18)
    labels = CELL_LABELS if kind == "cells2d" else ORGAN_LABELS
    root = write_phantom(kind, tmp_path / "new" / "p", 2, size, 3, suffix)
    assert sorted(path.name for path in root.parent.iterdir()) == ["p"]
    info, cases = read_dataset(root), find_cases(root)
    assert check_dataset(open_dataset(root), Expected(labels, len(size), 1)).errors == ()
    assert info is not None and info.dims == len(size) and info.label_map == labels and len(cases) == 2
    for case in cases:
        assert case.image.name.endswith(suffix) and case.label is not None
    image, label = open_scan(cases[1].image), open_scan(cases[1].label or "")
    drawn, classes = phantom_case(kind, size, 3, 1).scene.render(Box.of(size))
    np.testing.assert_array_equal(image.read(Box.of(size))[0], drawn)
    np.testing.assert_array_equal(label.read(Box.of(size))[0], labels.decode(classes.astype(np.uint8)))
    if suffix != ".png":
        assert info.spacing_mm is not None
        np.testing.assert_allclose(image.spacing_mm, info.spacing_mm, rtol=1e-5)
    again = write_phantom(kind, tmp_path / "again", 2, size, 3, suffix)
    assert digest(find_cases(again)) == digest(cases)
    assert (again / "dataset.json").read_bytes() == (root / "dataset.json").read_bytes()


def test_cases_differ_and_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    few = find_cases(write_phantom("cells2d", tmp_path / "few", 1, (32,), 0))
    many = find_cases(write_phantom("cells2d", tmp_path / "many", 3, (32,), 0))
    other = find_cases(write_phantom("cells2d", tmp_path / "other", 1, (32,), 1))
    assert few[0].image.read_bytes() == many[0].image.read_bytes()
    assert len({case.image.read_bytes() for case in [*many, *other]}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cells3d", 1, (64,)), "no phantom 'cells3d'; did you mean 'cells2d'"),
        (("cells2d", 0, (64,)), "at least 1 case"),
        (("cells2d", 1, (8,)), "at least 16"),
        (("cells2d", 1, (64, 64, 64)), "give 1 or 2 numbers"),
        (("organs3d", 1, (64, 64)), "give 1 or 3 numbers"),
        (("organs3d", 1, (64,), 0, "png"), "cannot be written as .png"),
    ],
)
def test_what_cannot_be_made(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    kind, *rest = arguments
    with pytest.raises(MedsegError, match=message):
        write_phantom(kind, tmp_path / "p", *rest)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_data_set_is_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "p"
    write_phantom("cells2d", out, 2, (16,))
    with pytest.raises(OutputError, match="exists"):
        write_phantom("cells2d", out, 1, (16,))
    assert len(find_cases(out)) == 2
    write_phantom("cells2d", out, 1, (16,), overwrite=True)
    assert len(find_cases(out)) == 1 and [path.name for path in tmp_path.iterdir()] == ["p"]
