from pathlib import Path

import numpy as np
import pytest

from medseg import create_mask, open_scan
from medseg.errors import OutputError
from medseg.inference.outputs import LARGEST_STREAM_BYTES, name_outputs, outgrown, voxels_of


def outputs(*names, format="auto", voxels=1000, label_bytes=1):
    found = name_outputs([Path("in") / n for n in names], Path("out"), format, label_bytes, lambda _: voxels)
    return [str(path.relative_to("out")) for path in found]


@pytest.mark.parametrize(
    ("name", "moderate", "large"),
    [
        ("a.nii", "a.nii", "a.nii"),
        ("a.nii.gz", "a.nii.gz", "a.ome.zarr"),
        ("a.hdr", "a.nii.gz", "a.ome.zarr"),
        ("a.MHA", "a.nii.gz", "a.ome.zarr"),
        ("a.mhd", "a.nii.gz", "a.ome.zarr"),
        ("a.nrrd", "a.nii.gz", "a.ome.zarr"),
        ("a.nhdr", "a.nii.gz", "a.ome.zarr"),
        ("a.tif", "a.tif", "a.tif"),
        ("a.ome.tiff", "a.tif", "a.tif"),
        ("a.svs", "a.tif", "a.tif"),
        ("a.ndpi", "a.tif", "a.tif"),
        ("a.zarr", "a.ome.zarr", "a.ome.zarr"),
        ("a.ome.zarr", "a.ome.zarr", "a.ome.zarr"),
        ("a.PNG", "a.png", "a.ome.zarr"),
        ("a.jpeg", "a.png", "a.ome.zarr"),
    ],
)
def test_auto_is_like_the_input_unless_a_stream_would_be_too_large(name, moderate, large):
    assert outputs(name) == outputs(name, voxels=LARGEST_STREAM_BYTES) == [moderate]
    assert outputs(name, voxels=LARGEST_STREAM_BYTES + 1) == [large]
    assert outputs(name, voxels=LARGEST_STREAM_BYTES // 2 + 1, label_bytes=2) == [large]
    for output in (moderate, large):
        assert outgrown(Path(name), Path(output), "auto") == (output != moderate)


def test_a_format_that_is_asked_for_is_obeyed_at_any_size():
    assert outputs("a.tif", format="nii.gz", voxels=1 << 50) == ["a.nii.gz"]
    assert not outgrown(Path("a.tif"), Path("a.ome.zarr"), "zarr")
    with pytest.raises(OutputError, match=r"format 'zar' is none of .*did you mean 'zarr'"):
        outputs("a.tif", format="zar")


def test_sizes_come_from_headers_and_what_cannot_be_opened_has_none(tmp_path):
    create_mask(tmp_path / "a.nii.gz", open_scan(np.zeros((1, 3, 4, 5), np.uint8))).close()
    (tmp_path / "b.nii.gz").write_bytes(b"damaged")
    assert [voxels_of(tmp_path / name) for name in ("a.nii.gz", "b.nii.gz", "missing.nii.gz")] == [60, 0, 0]
