"""A chain from file to file."""

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage as ndi
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label

from medseg import Box, open_scan
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, MedsegError, OutputError
from medseg.postprocessing.chain import Chain, run_chain
from medseg.postprocessing.files import process_file
from medseg.postprocessing.mask import Grid, ScanMask
from medseg.postprocessing.settings import parse_steps
from medseg.scans.header import Header, HeaderScan
from medseg.scans.lattice import steps_of, volume
from medseg.scans.scan import create_mask

CELL = Labels({"rest": 3, "cell": 0}, ("cell",))
"""The background is no 0, and the label is."""


def blobs(*shape, seed=0):
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (ndi.gaussian_filter(drawn, 1.2) > 0.15).astype(np.uint8)


def chain_of(*steps, labels=None):
    return Chain(parse_steps(list(steps), ""), labels)


def read(path):
    scan = open_scan(path)
    return scan.read(Box.of(scan.shape))[0]


def write(path, array, affine=None):
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    elif path.suffix == ".zarr":
        sink = create_mask(path, open_scan(array[None]), dtype=array.dtype)
        sink.write(Box.of(array.shape), array)
        sink.close()
    else:
        image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".nii", ".ome.zarr"])
def test_every_format_goes_through_on_its_own_grid(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("medseg.scans.blocks.BLOCK_VOXELS", 200)
    array = blobs(14, 13, 9)
    affine = np.array([[0, -0.5, 0, 3], [0.7, 0, 0, 1], [0, 0, 2, -9], [0, 0, 0, 1]])
    path = write(tmp_path / f"a{suffix}", array, affine)
    out = tmp_path / "out" / f"a{suffix}"
    out.parent.mkdir()
    process_file(path, out, chain_of({"name": "remove_small", "min_voxels": 9}, {"name": "instances"}))
    kept = np.isin(numbers := label(array), np.flatnonzero(np.bincount(numbers.ravel()) >= 9)) & (array > 0)
    np.testing.assert_array_equal(read(out), label(kept))
    assert read(out).dtype == np.uint32
    before, after = open_scan(path), open_scan(out)
    np.testing.assert_allclose(after.affine, before.affine)
    assert (after.axes, after.unit, after.shape) == (before.axes, before.unit, before.shape)
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_the_order_of_steps_is_kept():
    array = np.zeros((7, 12), np.uint8)
    array[1:6, 1:6] = 1
    array[2:5, 2:5] = 0
    array[1:5, 7:12] = 1
    fill, keep = {"name": "fill_holes"}, {"name": "keep_largest"}
    found = {}
    for steps in ((fill, keep), (keep, fill)):
        scan = open_scan(array[None])
        sink = create_mask(None, scan)
        run_chain(scan, sink, chain_of(*steps), scan)
        found[steps[0]["name"]] = sink.array
    assert found["fill_holes"].sum() == found["fill_holes"][:, :6].sum() == 25
    assert found["keep_largest"].sum() == found["keep_largest"][:, 7:].sum() == 20


def placed(affine, shape):
    """A scan of which the header alone is known."""
    return HeaderScan(Header("a", shape, 1, np.dtype(np.uint8), "XYZ"[: len(shape)], affine, "mm", True))


@given(st.integers(1, 40), st.floats(0.05, 3), st.floats(0.05, 3), st.floats(0.05, 3))
def test_a_size_in_millimetres_is_one_in_voxels(voxels, a, b, c):
    affine = np.diag([a, b, c, 1]).astype(np.float32).astype(np.float64)
    array = np.zeros((3, 50, 3), np.uint8)
    array[1, 1 : 1 + voxels, 1] = 1
    sized = placed(affine, array.shape)
    for size, stays in ((a * b * c * voxels, True), (a * b * c * (voxels + 0.5), False)):
        scan = open_scan(array[None])
        sink = create_mask(None, scan)
        run_chain(scan, sink, chain_of({"name": "remove_small", "min_mm3": size}), sized)
        assert sink.array.any() == stays


def test_a_sheared_voxel_has_its_volume():
    affine = np.eye(4)
    affine[:3, :3] = [[2, 1, 0], [0, 3, 0.5], [0, 0, 4]]
    assert volume(steps_of(placed(affine, (2, 3, 4)))) == pytest.approx(24)
    assert volume(steps_of(placed(affine, (2, 3)))) == pytest.approx(6)


def test_millimetres_of_a_scan_without_any_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", blobs(9, 9))
    with pytest.raises(ConfigError, match="does not say how large its voxels are: give remove_small a size in voxels"):
        process_file(path, tmp_path / "b.tif", chain_of({"name": "remove_small", "min_mm2": 3}))
    assert not (tmp_path / "b.tif").exists()


def test_names_are_the_labels_own_values_and_so_is_the_background(tmp_path):
    array = np.where(blobs(20, 20), 0, 3).astype(np.uint8)
    path = write(tmp_path / "a.tif", array)
    chain = chain_of({"name": "keep_largest", "labels": ["cell"]}, labels=CELL)
    process_file(path, tmp_path / "b.tif", chain)
    numbers = label(array == 0)
    largest = np.bincount(numbers.ravel())[1:].argmax() + 1
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), np.where(numbers == largest, 0, 3))


def test_instances_say_what_they_are():
    assert chain_of({"name": "instances"}, labels=CELL).written == Labels({"background": 0, "cell": 1}, instances=True)
    two = Labels({"background": 0, "a": 1, "b": 2})
    assert chain_of({"name": "instances"}, labels=two).written.instances
    assert chain_of({"name": "keep_largest"}, labels=two).written == two


def test_whole_numbers_in_a_real_type_are_labels_and_others_are_none(tmp_path):
    array = blobs(9, 8, 7)
    path = write(tmp_path / "a.nii", array.astype(np.float32))
    process_file(path, tmp_path / "b.nii", chain_of({"name": "keep_largest"}))
    assert set(np.unique(read(tmp_path / "b.nii"))) == {0, 1}
    path = write(tmp_path / "c.nii", array * np.float32(0.5))
    with pytest.raises(MedsegError, match="whole numbers"):
        process_file(path, tmp_path / "d.nii", chain_of({"name": "keep_largest"}))


def test_what_exists_is_not_replaced_unasked(tmp_path):
    path = write(tmp_path / "a.tif", blobs(9, 9))
    out = write(tmp_path / "b.tif", blobs(9, 9, seed=1))
    before = out.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        process_file(path, out, chain_of({"name": "keep_largest"}))
    assert out.read_bytes() == before
    process_file(path, out, chain_of({"name": "keep_largest"}), overwrite=True)
    assert out.read_bytes() != before


def test_no_array_of_the_whole_is_read_or_written(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.postprocessing.mask.Grid.of", lambda scan: Grid(scan.shape, (4, 32, 32)))
    scan = open_scan(blobs(64, 32, 32)[None])
    sizes = []
    block = ScanMask.block

    def watched(self, index):
        sizes.append(block(self, index).size)
        return block(self, index)

    monkeypatch.setattr(ScanMask, "block", watched)
    sink = create_mask(None, scan)
    done = []
    steps = ({"name": "remove_small", "min_voxels": 5}, {"name": "fill_holes"}, {"name": "keep_largest"})
    run_chain(scan, sink, chain_of(*steps), scan, lambda now, of: done.append((now, of)))
    assert set(sizes) == {4 * 32 * 32}
    assert done == [(n, 64) for n in range(1, 65)]
