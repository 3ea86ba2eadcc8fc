"""RTSTRUCT as labels: what is inside contours, in the planes of the image, and nowhere else."""

import pickle

import numpy as np
import pytest
from dicom_files import dataset, functional, tilted, write, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg import open_scan
from medseg.datasets.check import open_label
from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.rtstruct import Structures

LPS = np.diag([-1.0, -1.0, 1.0])
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"


def whole(scan):
    return scan.read(Box.of(scan.shape))


@pytest.fixture
def image(tmp_path):
    """Five slices of 16 x 14 voxels, their gantry tilted."""
    volume = np.zeros((16, 14, 5), np.int16)
    return open_scan(write_series(tmp_path / "ct", volume, tilted(), FrameOfReferenceUID="1.2.9"))


def contour(scan, k, corners, kind="CLOSED_PLANAR"):
    """An item of a contour sequence: (x, y) voxel coordinates in slice k."""
    points = np.array([(x, y, k, 1) for x, y in corners]) @ scan.affine.T
    item = Dataset()
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{v:.10g}" for v in (points[:, :3] @ LPS).ravel()]
    return item


def structures(path, regions, world="1.2.9"):
    """A structure set of regions {name: [contour]}."""
    made = dataset(np.zeros((1, 1), np.uint8), sop=STRUCTURES, Modality="RTSTRUCT")
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        delattr(made, keyword)
    made.StructureSetROISequence, made.ROIContourSequence = Sequence(), Sequence()
    made.ReferencedFrameOfReferenceSequence = Sequence([functional()])
    made.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = world
    for number, (name, contours) in enumerate(regions.items(), 1):
        named, drawn = Dataset(), Dataset()
        named.ROINumber, named.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, Sequence(contours)
        made.StructureSetROISequence.append(named)
        made.ROIContourSequence.append(drawn)
    return write(path, made)


def rectangle(x, y, width, height):
    """Around so many voxels, along the borders between them."""
    left, top = x - 0.5, y - 0.5
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


@settings(max_examples=12)
@given(st.data())
def test_a_rectangle_between_voxels_holds_those_within(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rt")
    scan = open_scan(
        write_series(folder / "ct", np.zeros((16, 14, 5), np.int16), tilted(), FrameOfReferenceUID="1.2.9")
    )
    x, y, k = (data.draw(st.integers(0, n - 1)) for n in scan.shape)
    width, height = data.draw(st.integers(1, 16 - x)), data.draw(st.integers(1, 14 - y))
    path = structures(folder / "rt.dcm", {"organ": [contour(scan, k, rectangle(x, y, width, height))]})
    expected = np.zeros(scan.shape, np.uint8)
    expected[x : x + width, y : y + height, k] = 1
    labels = open_label(path, scan)
    np.testing.assert_array_equal(whole(labels)[0], expected)
    start = [data.draw(st.integers(0, n)) for n in scan.shape]
    box = Box(tuple(start), tuple(data.draw(st.integers(a, n)) for a, n in zip(start, scan.shape, strict=True)))
    np.testing.assert_array_equal(labels.read(box)[0], expected[box.slices])


def test_a_circle_holds_what_is_nearer_than_its_radius(image, tmp_path):
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = [(7.3 + 4.6 * np.cos(a), 6.8 + 4.6 * np.sin(a)) for a in angles]
    labels = open_label(structures(tmp_path / "rt.dcm", {"organ": [contour(image, 2, circle)]}), image)
    x, y = np.indices(image.shape[:2])
    distance = np.hypot(x - 7.3, y - 6.8)
    clear = np.abs(distance - 4.6) > 1e-3
    np.testing.assert_array_equal((whole(labels)[0, ..., 2] == 1)[clear], (distance < 4.6)[clear])
    assert not whole(labels)[0, ..., [0, 1, 3, 4]].any()


def test_a_contour_inside_another_is_a_hole_and_so_is_a_keyhole(image, tmp_path):
    outer, inner = rectangle(2, 2, 9, 8), rectangle(5, 4, 3, 3)
    keyhole = [*outer, outer[0], inner[0], *inner[::-1], outer[0]]
    regions = {
        "ring": [contour(image, 1, outer), contour(image, 1, inner)],
        "keyhole": [contour(image, 3, keyhole)],
        "parts": [contour(image, 0, rectangle(0, 0, 2, 2)), contour(image, 0, rectangle(4, 4, 2, 2))],
    }
    read = whole(open_label(structures(tmp_path / "rt.dcm", regions), image))[0]
    ring = np.zeros(image.shape[:2], bool)
    ring[2:11, 2:10] = True
    ring[5:8, 4:7] = False
    np.testing.assert_array_equal(read[..., 1] == 1, ring)
    keyed = read[..., 3] == 2
    on_channel = keyed ^ ring  # the channel has no width, so that only voxels that it goes through may differ
    assert not (keyed & ~ring)[5:8, 4:7][1:, 1:].any() and on_channel.sum() <= 6
    assert (read[..., 0] == 3).sum() == 8


def test_regions_that_overlap_have_the_value_of_their_set(image, tmp_path):
    regions = {
        "body": [contour(image, 2, rectangle(1, 1, 10, 10))],
        "organ": [contour(image, 2, rectangle(3, 3, 3, 3))],
        "marker": [contour(image, 2, [(5, 5)], kind="POINT")],
    }
    path = structures(tmp_path / "rt.dcm", regions)
    with pytest.raises(ScanError, match="1 and 2 overlap"):
        whole(open_label(path, image))
    table = ((("body",), 1), (("organ",), 2), (("body", "organ"), 3))
    read = open_label(path, image, table)
    values, counts = np.unique(whole(pickle.loads(pickle.dumps(read))), return_counts=True)
    assert dict(zip(values, counts, strict=True)) == {0: 16 * 14 * 5 - 100, 1: 91, 3: 9}
    assert Structures(path, "rt").names == {1: "body", 2: "organ"}


@pytest.mark.parametrize(
    ("k", "world", "said"),
    [
        (1.5, "1.2.9", "in no plane of its own"),
        (7, "1.2.9", "slices of the series are missing"),
        (1, "1.2.8", "another frame of reference"),
    ],
)
def test_what_does_not_lie_in_the_images_planes_is_refused(k, world, said, image, tmp_path):
    path = structures(tmp_path / "rt.dcm", {"organ": [contour(image, k, rectangle(1, 1, 3, 3))]}, world)
    with pytest.raises(ScanError, match=said):
        open_label(path, image)


def test_a_contour_across_planes_is_refused(image, tmp_path):
    one, other = contour(image, 1, rectangle(1, 1, 3, 3)), contour(image, 2, rectangle(1, 1, 3, 3))
    one.ContourData = [*one.ContourData[:6], *other.ContourData[6:]]
    with pytest.raises(ScanError, match="slice 1 to 2"):
        open_label(structures(tmp_path / "rt.dcm", {"organ": [one]}), image)


def test_what_is_no_contour_is_told(image, tmp_path):
    short = contour(image, 1, [(1, 1), (2, 2)])
    with pytest.raises(ScanError, match="three a point"):
        open_label(structures(tmp_path / "short.dcm", {"organ": [short]}), image)
    with pytest.raises(ScanError, match="no closed contour"):
        open_label(structures(tmp_path / "point.dcm", {"organ": [contour(image, 1, [(1, 1)], "POINT")]}), image)
    with pytest.raises(ScanError, match="read with its image series"):
        open_label(structures(tmp_path / "rt.dcm", {"organ": [contour(image, 1, rectangle(1, 1, 3, 3))]}))


def test_a_real_one_that_refers_to_missing_slices_is_refused(real_data):
    folder = real_data / "dicom_seg_rt" / "rt_utils" / "mock_data"
    with pytest.raises(ScanError, match=r"slices of the series are missing|no plane|frame of reference"):
        open_label(folder / "invalid_reference_rt.dcm", open_scan(folder))
