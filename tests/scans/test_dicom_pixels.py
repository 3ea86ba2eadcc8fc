"""Compressed and coloured pixels are those that went in."""

import numpy as np
import pytest
from dicom_files import CT, RADIOGRAPH, dataset, enhanced, placed, tilted, write, write_series
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scan_laws import assert_reads, grid_boxes, numbers

from medseg import open_scan
from medseg.scans.cache import PIECES

NEEDS = {RLELossless: "pydicom", JPEGLSLossless: "jpeg_ls", JPEG2000Lossless: "openjpeg"}
"""The package that encodes and decodes each syntax; those of the extra are not always there."""


def compressed(made, syntax):
    pytest.importorskip(NEEDS[syntax])
    made.compress(syntax)
    return made


@pytest.mark.parametrize("syntax", NEEDS)
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 12), ("u2", 16), ("i2", 16)])
def test_lossless_compression_loses_nothing(tmp_path, syntax, dtype, bits):
    volume = numbers((40, 36, 2), dtype) >> np.array(np.dtype(dtype).itemsize * 8 - bits, dtype)
    made = compressed(enhanced(volume, tilted(), bits=bits), syntax)
    assert_reads(open_scan(write(tmp_path / "a.dcm", made)), volume[None], grid_boxes(volume.shape, (23, 14, 2)))


def test_a_series_may_be_compressed_in_part(tmp_path):
    volume = numbers((7, 6, 4), "i2")

    def edit(k, made):
        if k % 2:
            made.compress(RLELossless)

    assert_reads(open_scan(write_series(tmp_path / "s", volume, tilted(), edit=edit)), volume[None], [])


def test_a_frame_may_lie_in_several_pieces(tmp_path):
    """JPEG-LS frames in fragments, with and without a table of offsets (PS3.5 A.4)."""
    volume = numbers((16, 12, 3), "u2")
    made = compressed(enhanced(volume, tilted()), JPEGLSLossless)
    frames = list(generate_frames(made.PixelData, number_of_frames=3))
    for has_table in (True, False):
        made.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=has_table)
        assert_reads(open_scan(write(tmp_path / f"{has_table}.dcm", made)), volume[None], [])


def test_a_compressed_frame_is_decoded_once_while_it_is_kept(tmp_path):
    volume = numbers((7, 6, 3), "u2")
    made = enhanced(volume, tilted())
    made.compress(RLELossless)
    scan = open_scan(write(tmp_path / "a.dcm", made))
    before = PIECES.made
    assert_reads(scan, volume[None], grid_boxes(volume.shape, (2, 2, 1)))
    assert PIECES.made - before == 3


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_are_three_channels_however_they_are_laid_out(tmp_path, planar):
    pixels = numbers((5, 4, 3), "u1")
    made = dataset(pixels, sop=RADIOGRAPH, photometric="RGB")
    if planar:
        made.PlanarConfiguration = 1
        made.PixelData = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).tobytes()
    scan = open_scan(write(tmp_path / "a.dcm", made))
    assert_reads(scan, np.moveaxis(pixels, -1, 0), grid_boxes((5, 4), (2, 3)))


def test_luminance_and_colour_differences_become_colours(tmp_path):
    """PS3.3 C.7.6.3.1.2: Y = 0.299 R + 0.587 G + 0.114 B, and grey has no differences."""
    rgb = numbers((5, 4, 3), "u1").astype(float)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr = np.rint((rgb @ matrix.T + [0, 128, 128]).clip(0, 255)).astype(np.uint8)
    scan = open_scan(write(tmp_path / "a.dcm", dataset(ybr, sop=RADIOGRAPH, photometric="YBR_FULL")))
    whole = assert_close(scan, rgb)
    assert whole.dtype == np.uint8


def assert_close(scan, rgb):
    from medseg.geometry import Box

    whole = scan.read(Box.of(scan.shape))
    np.testing.assert_allclose(np.moveaxis(whole, 0, -1).astype(float), rgb, atol=2)
    return whole


@pytest.mark.parametrize("shape", [(4, 5), (5, 5)])
def test_big_endian_bytes_may_be_stored_in_words(tmp_path, shape):
    """PS3.5 A.3: bytes as OW are swapped in pairs."""
    pixels = numbers(shape, "u1")
    made = dataset(pixels, sop=CT, syntax=ExplicitVRBigEndian, **placed((0, 0, 0)))
    made["PixelData"].VR = "OB"
    assert_reads(open_scan(write(tmp_path / "bytes.dcm", made)), pixels[None], [])
    data = pixels.tobytes() + b"\0" * (pixels.size % 2)
    made.PixelData = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    made["PixelData"].VR = "OW"
    assert_reads(open_scan(write(tmp_path / "words.dcm", made)), pixels[None], [])
