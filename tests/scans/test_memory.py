import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import assert_reads, boxes, numbers

from medseg.errors import GridError, OutputError, ScanError
from medseg.geometry import Box
from medseg.scans.scan import MaskSink, Scan, create_mask, open_scan


@given(st.data(), st.sampled_from([(1, 5, 6), (3, 4, 5, 6)]), st.sampled_from(["u1", "<i2", ">i2", "f4", ">f8"]))
def test_boxes_are_slices(data, shape, dtype):
    whole = numbers(shape, np.dtype(dtype).newbyteorder("=")).astype(dtype)
    assert_reads(open_scan(whole), whole, [data.draw(boxes(shape[1:]))])


def test_what_an_array_is():
    scan = open_scan(np.zeros((3, 4, 5), bool))
    assert isinstance(scan, Scan)
    assert (scan.name, scan.shape, scan.channels, scan.axes) == ("array", (4, 5), 3, "YX")
    assert (scan.unit, scan.anatomical, scan.spacing_mm, scan.dtype) == ("pixel", False, (1.0, 1.0), np.uint8)
    np.testing.assert_array_equal(scan.affine, np.eye(4))


def test_what_is_read_is_the_readers_own():
    whole = np.zeros((1, 4, 5))
    open_scan(whole).read(Box.of((4, 5)))[:] = 7
    assert not whole.any()


def test_it_can_be_sent_to_another_process():
    scan = pickle.loads(pickle.dumps(open_scan(np.arange(20).reshape(1, 4, 5))))
    assert scan.read(Box((1, 1), (2, 3))).tolist() == [[[6, 7]]]


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 3)), np.zeros((1, 0, 3)), np.zeros((1, 2, 2), complex)])
def test_what_is_no_image_is_refused(array):
    with pytest.raises(ScanError):
        open_scan(array)


@pytest.mark.parametrize("box", [Box((0, 0), (5, 5)), Box((-1, 0), (2, 2)), Box((0,), (1,))])
def test_a_box_that_overhangs_is_refused(box):
    with pytest.raises(GridError, match="array: the box"):
        open_scan(np.zeros((1, 4, 5))).read(box)


@given(st.data(), st.sampled_from([None, 2]))
def test_a_mask_in_memory(data, channels):
    sink = create_mask(None, open_scan(np.zeros((1, 6, 7))), dtype=np.uint16, channels=channels)
    assert isinstance(sink, MaskSink)
    want = np.zeros(((channels,) if channels else ()) + (6, 7), np.uint16)
    for box in data.draw(st.lists(boxes((6, 7)), max_size=4)):
        labels = numbers(want[(..., *box.slices)].shape, np.uint16, seed=box.voxels)
        sink.write(box, labels)
        want[(..., *box.slices)] = labels
    sink.flush()
    sink.close()
    np.testing.assert_array_equal(sink.array, want)


def test_labels_that_do_not_fit_are_refused():
    sink = create_mask(None, open_scan(np.zeros((1, 6, 7))))
    sink.write(Box((0, 0), (1, 2)), np.array([[3, 255]], np.int64))
    assert sink.array[0, :2].tolist() == [3, 255]
    with pytest.raises(OutputError, match="3 to 256 do not fit uint8"):
        sink.write(Box((0, 0), (1, 2)), np.array([[3, 256]]))
    with pytest.raises(GridError, match="do not fill the box"):
        sink.write(Box((0, 0), (1, 2)), np.zeros((2, 1), np.uint8))
    with pytest.raises(GridError, match="overhangs"):
        sink.write(Box((5, 0), (7, 2)), np.zeros((2, 2), np.uint8))
