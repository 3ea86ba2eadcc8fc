import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_laws import assert_reads, assert_threads_agree, boxes, numbers

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.scan import open_scan

SIZE = (21, 34)


@given(st.data(), st.sampled_from(["u1", "u2"]), st.sampled_from([1, 2, 3, 4]))
def test_png_keeps_its_bits_and_channels(tmp_path_factory, data, dtype, channels):
    path = tmp_path_factory.mktemp("png") / "a.png"
    pixels = numbers((*SIZE, channels), dtype)
    path.write_bytes(imagecodecs.png_encode(pixels[..., 0] if channels == 1 else pixels))
    scan = open_scan(path)
    assert scan.dtype == np.dtype(dtype)
    assert_reads(scan, np.moveaxis(pixels, -1, 0), [data.draw(boxes(SIZE))])


@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "L"), ("jpeg", "RGB"), ("bmp", "RGB"), ("bmp", "L"), ("gif", "L")]
)
def test_other_pictures_are_as_pillow_says(tmp_path, suffix, mode):
    Image.fromarray(numbers((*SIZE, 3), "u1")).convert(mode).save(tmp_path / f"a.{suffix}")
    pixels = np.asarray(Image.open(tmp_path / f"a.{suffix}").convert(mode))
    whole = pixels[None] if mode == "L" else np.moveaxis(pixels, -1, 0)
    assert_reads(open_scan(tmp_path / f"a.{suffix}"), whole, [Box((3, 4), (9, 30))])


def test_what_a_picture_is(tmp_path):
    Image.fromarray(numbers(SIZE, "u1")).save(tmp_path / "a.png", dpi=(300, 300))
    scan = open_scan(tmp_path / "a.png")
    assert (scan.axes, scan.unit, scan.spacing_mm, scan.anatomical) == ("YX", "pixel", (1.0, 1.0), False)
    np.testing.assert_array_equal(scan.affine, np.eye(4))


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_colour_table_is_colours_as_an_image_and_places_as_labels(tmp_path, suffix):
    places = numbers(SIZE, "u1") % 3
    colours = np.array([(0, 0, 0), (128, 0, 0), (4, 252, 4)], np.uint8)
    picture = Image.fromarray(places, mode="P")
    picture.putpalette(colours.tobytes())
    picture.save(tmp_path / f"a.{suffix}", optimize=False)
    assert_reads(open_scan(tmp_path / f"a.{suffix}"), np.moveaxis(colours[places], -1, 0), [Box((3, 4), (9, 30))])
    assert_reads(open_scan(tmp_path / f"a.{suffix}", labels=True), places[None], [Box((3, 4), (9, 30))])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_table_of_greys_is_grey(tmp_path, suffix, labels):
    places = numbers(SIZE, "u1") % 2
    picture = Image.fromarray(places, mode="P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / f"a.{suffix}")
    assert_reads(open_scan(tmp_path / f"a.{suffix}", labels=labels), places[None] * np.uint8(255), [])


def test_one_bit_is_0_and_1(tmp_path):
    bits = numbers(SIZE, "u1") > 99
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert_reads(open_scan(tmp_path / "a.png"), bits[None].astype(np.uint8), [])


def test_pixels_are_as_stored_whatever_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(numbers(SIZE, "u1")).save(tmp_path / "a.jpg", exif=exif)
    assert open_scan(tmp_path / "a.jpg").shape == SIZE


def test_threads(tmp_path):
    pixels = numbers(SIZE, "u1")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert_threads_agree(open_scan(tmp_path / "a.png"), pixels[None])


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(numbers(SIZE, "u1")).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ScanError, match=r"a\.png: announces more than 200 pixels.*tiled TIFF or a Zarr"):
        open_scan(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert open_scan(tmp_path / "a.png").shape == SIZE


def test_animated_and_cmyk_pictures_are_refused(tmp_path):
    frames = [Image.fromarray(numbers(SIZE, "u1", seed=n)) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ScanError, match=r"animated \(3 frames\)"):
        open_scan(tmp_path / "a.gif")
    Image.new("CMYK", SIZE).save(tmp_path / "a.jpg")
    with pytest.raises(ScanError, match="CMYK"):
        open_scan(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_that_is_cut_short(tmp_path, suffix, share):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(numbers((60, 60, 3), "u1")).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ScanError, match=rf"a\.{suffix}: "):
        open_scan(path).read(Box.of((60, 60)))


@pytest.mark.parametrize(
    "name", ["drive/training/*/*.gif", "cxr_lung/*/*.png", "dsb2018_nuclei/**/*.png", "ivadomed_testing/**/*.png"]
)
def test_real_files(real_data, name):
    for path in sorted(real_data.glob(name))[:20]:
        pixels = imagecodecs.imread(path) if path.suffix == ".png" else np.asarray(Image.open(path))
        assert_reads(open_scan(path), pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0), [])
