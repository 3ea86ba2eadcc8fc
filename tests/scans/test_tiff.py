import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import assert_reads, assert_threads_agree, boxes, numbers

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.cache import PIECES
from medseg.scans.scan import open_scan

KINDS = {
    "plain": {},
    "strips": {"rowsperstrip": 7},
    "deflated strips": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "deflated tiles": {"tile": (16, 32), "compression": "zlib"},
    "tiles": {"tile": (16, 32)},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True, "compression": "lzw"},
    "no metadata": {"metadata": None, "compression": "zstd"},
    "OME": {"ome": True, "compression": "zlib"},
}


@given(
    st.data(),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["u1", "u2", "u4", "i2", "f4", "f8"]),
    st.sampled_from([(45, 70), (3, 45, 70), (1, 33)]),
)
def test_grey_boxes_are_slices(tmp_path_factory, data, kind, dtype, shape):
    path = tmp_path_factory.mktemp("tiff") / ("a.ome.tif" if kind == "OME" else "a.tif")
    array = numbers(shape, dtype)
    tifffile.imwrite(path, array, photometric="minisblack", **KINDS[kind])
    scan = open_scan(path)
    assert_reads(scan, array[None], [data.draw(boxes(shape))])
    assert (scan.axes, scan.unit, scan.anatomical) == ("ZYX"[-len(shape) :], "pixel", False)
    np.testing.assert_array_equal(scan.affine, np.eye(4))


@given(
    st.data(),
    st.sampled_from(["plain", "deflated strips", "deflated tiles", "big endian"]),
    st.sampled_from(["contig", "separate"]),
    st.sampled_from(["u1", "u2"]),
    st.sampled_from([3, 4]),
    st.booleans(),
)
def test_colours_are_channels(tmp_path_factory, data, kind, planar, dtype, samples, stack):
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    spatial = (2, 45, 70) if stack else (45, 70)
    whole = numbers((samples, *spatial), dtype)
    stored = np.moveaxis(whole, 0, -1 if planar == "contig" else -3)
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, **KINDS[kind])
    assert_reads(open_scan(path), whole, [data.draw(boxes(spatial))])


def test_channel_axes_of_the_metadata_are_channels(tmp_path):
    whole = numbers((2, 3, 20, 30), "u2")
    tifffile.imwrite(tmp_path / "ome.ome.tif", whole, ome=True, metadata={"axes": "CZYX"}, photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "json.tif", whole, metadata={"axes": "CZYX"}, compression="zlib", photometric="minisblack"
    )
    tifffile.imwrite(tmp_path / "imagej.tif", np.moveaxis(whole, 0, 1), imagej=True, metadata={"axes": "ZCYX"})
    for name in ("ome.ome.tif", "json.tif", "imagej.tif"):
        assert_reads(open_scan(tmp_path / name), whole, [Box((1, 2, 3), (3, 9, 30))])


def test_jpeg_tiles_and_one_bit(tmp_path):
    colours = np.kron(numbers((5, 6, 3), "u1"), np.ones((16, 16, 1), np.uint8))
    tifffile.imwrite(tmp_path / "a.tif", colours, tile=(32, 32), compression="jpeg", photometric="rgb")
    decoded = np.moveaxis(tifffile.imread(tmp_path / "a.tif"), -1, 0)
    assert_reads(open_scan(tmp_path / "a.tif"), decoded, [Box((10, 20), (60, 61))])
    bits = numbers((20, 37), "u1") > 99
    tifffile.imwrite(tmp_path / "b.tif", bits)
    scan = open_scan(tmp_path / "b.tif")
    assert scan.dtype == np.uint8
    assert_reads(scan, bits[None].astype(np.uint8), [Box((3, 5), (9, 22))])


def test_a_colour_table_is_not_applied(tmp_path):
    places = numbers((20, 30), "u1")
    tifffile.imwrite(tmp_path / "a.tif", places, photometric="palette", colormap=numbers((3, 256), "u2"))
    assert_reads(open_scan(tmp_path / "a.tif"), places[None], [])


@pytest.mark.parametrize(
    ("options", "spacing", "unit"),
    [
        (
            {"imagej": True, "resolution": (4, 2), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 3}},
            (3, 0.5, 0.25),
            "um",
        ),
        (
            {"imagej": True, "resolution": (4, 2), "metadata": {"axes": "ZYX", "unit": "\\u00B5m", "spacing": 3}},
            (3, 0.5, 0.25),
            "um",
        ),
        (
            {"imagej": True, "resolution": (4, 2), "metadata": {"axes": "ZYX", "unit": "pixel", "spacing": 3}},
            (1, 1, 1),
            "pixel",
        ),
        ({"imagej": True, "resolution": (72, 72), "metadata": {"axes": "ZYX", "unit": "inch"}}, (1, 1, 1), "pixel"),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX",
                    **{f"PhysicalSize{a}": s for a, s in zip("ZYX", (3, 0.5, 0.25), strict=True)},
                },
            },
            (3, 0.5, 0.25),
            "um",
        ),
        (
            {
                "ome": True,
                "metadata": {"axes": "ZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5},
            },
            (1e-3, 5e-4, 2.5e-4),
            "mm",
        ),
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, (1, 5e-5, 2.5e-5), "cm"),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, (1, 1, 1), "pixel"),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, (1, 1, 1), "pixel"),
    ],
)
def test_spacing(tmp_path, options, spacing, unit):
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, numbers((5, 20, 30), "u2"), **options)
    scan = open_scan(path)
    assert scan.unit == unit
    millimetres = {"um": 1e-3, "mm": 1, "cm": 10, "pixel": 1}[unit]
    assert scan.spacing_mm[1:] == pytest.approx([s * millimetres for s in spacing[1:]])
    assert unit == "cm" or scan.spacing_mm[0] == pytest.approx(spacing[0] * millimetres)


def test_threads_and_processes(tmp_path):
    array = numbers((5, 90, 100), "u2")
    tifffile.imwrite(tmp_path / "a.tif", array, tile=(32, 32), compression="zlib")
    scan = open_scan(tmp_path / "a.tif")
    assert_threads_agree(scan, array[None])
    assert_reads(pickle.loads(pickle.dumps(scan)), array[None], [])


def test_only_the_tiles_of_the_box_are_decoded(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers((400, 400), "u1"), tile=(16, 16), compression="zlib")
    scan = open_scan(tmp_path / "a.tif")
    asked = []
    pread = scan._source._pread
    scan._source._pread = lambda size, offset: asked.append(offset) or pread(size, offset)
    scan.read(Box((30, 30), (50, 33)))
    assert len(asked) == 3 * 2
    scan.read(Box((32, 32), (48, 33)))
    assert len(asked) == 3 * 2


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"imagej": True}, {"ome": True, "compression": "zlib"}, {"metadata": None}],
    ids=str,
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.999])
def test_a_file_that_is_cut_short(tmp_path, caplog, options, share):
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, numbers((8, 64, 64), "u1"), **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ScanError, match=r"a(\.ome)?\.tif: is (cut short|damaged)"):
        open_scan(path)


def test_other_axes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "t.tif", numbers((5, 2, 9, 9), "u1"), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(ScanError, match="5 points in time"):
        open_scan(tmp_path / "t.tif")
    tifffile.imwrite(tmp_path / "q.tif", numbers((5, 2, 9, 9), "u1"))
    with pytest.raises(ScanError, match="along an axis «Q»"):
        open_scan(tmp_path / "q.tif")
    tifffile.imwrite(tmp_path / "c.tif", numbers((9, 9), "f4").astype(np.complex64))
    with pytest.raises(ScanError, match="complex64"):
        open_scan(tmp_path / "c.tif")


def test_a_file_is_not_led_to_others(tmp_path):
    for name in ("one.ome.tif", "two.ome.tif"):
        tifffile.imwrite(tmp_path / name, numbers((1, 9, 9), "u1"), ome=True, metadata={"axes": "ZYX"})
    xml = tifffile.tiffcomment(tmp_path / "one.ome.tif").replace(
        '<TiffData IFD="0" PlaneCount="1"/>',
        '<TiffData IFD="0"><UUID FileName="two.ome.tif">urn:uuid:12345678-1234-1234-1234-123456789abc</UUID>'
        "</TiffData>",
    )
    tifffile.tiffcomment(tmp_path / "one.ome.tif", xml)
    (tmp_path / "two.ome.tif").unlink()
    assert open_scan(tmp_path / "one.ome.tif").shape[-2:] == (9, 9)


def save_pyramid(path, levels, **options):
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, tile=(32, 32), **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, tile=(32, 32), **options)


@pytest.mark.parametrize("compression", ["zlib", "jpeg", "jpeg2000"])
def test_of_a_pyramid_the_finest_level_is_read(tmp_path, compression):
    finest = np.kron(numbers((13, 9, 3), "u1"), np.ones((16, 16, 1), np.uint8))
    save_pyramid(
        tmp_path / "a.tif", [finest, finest[::2, ::2], finest[::4, ::4]], compression=compression, photometric="rgb"
    )
    decoded = np.moveaxis(tifffile.imread(tmp_path / "a.tif", series=0, level=0), -1, 0)
    assert decoded.shape == (3, 208, 144)
    assert_reads(open_scan(tmp_path / "a.tif"), decoded, [Box((10, 20), (60, 61)), Box((190, 100), (208, 144))])


@pytest.mark.parametrize("options", [{"tile": (16, 32)}, {"rowsperstrip": 11}], ids=str)
def test_a_segment_is_decoded_once_however_windows_overlap(tmp_path, options):
    whole = numbers((90, 70), "u2")
    tifffile.imwrite(tmp_path / "a.tif", whole, compression="zlib", **options)
    scan, before = open_scan(tmp_path / "a.tif"), PIECES.made
    for top in range(2, 83, 3):
        scan.read(Box((top, 0), (top + 10, 50)))
        scan.read(Box((top, 20), (top + 10, 70)))
    assert PIECES.made - before == (6 * 3 if "tile" in options else 9)


@pytest.mark.parametrize(
    "name", ["large_images/*.svs", "large_images/*.ndpi", "stardist_examples/*.tif", "**/micr/*.tif"]
)
def test_real_files(real_data, name):
    for path in sorted(real_data.glob(name)):
        scan = open_scan(path)
        whole = tifffile.imread(path, series=0)
        whole = np.moveaxis(whole, -1, 0) if scan.channels > 1 else whole[None]
        middle = Box(tuple(n // 3 for n in scan.shape), tuple(n // 3 + 9 for n in scan.shape))
        assert_reads(scan, whole, [middle])


def test_real_spacings(real_data):
    assert open_scan(real_data / "large_images/CMU-1-Small-Region.svs").spacing_mm == pytest.approx([499e-6] * 2)
    ndpi = open_scan(real_data / "large_images/test3-DAPI-2-(387).ndpi")
    assert ndpi.spacing_mm == pytest.approx([10 / 43826] * 2)
    assert open_scan(next((real_data / "drive/training/images").glob("*.tif"))).unit == "pixel"
