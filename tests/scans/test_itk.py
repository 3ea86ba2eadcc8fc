import bz2
import gzip
import logging
import pickle
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import assert_reads, assert_threads_agree, boxes, numbers

from medseg.errors import ConfigError, ScanError
from medseg.geometry import Box
from medseg.scans import itk
from medseg.scans.scan import open_scan

TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
SUFFIXES = [".mha", ".mhd", ".nrrd", ".nhdr"]
ANGLE = 0.4
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
TILT = TURN @ TURN[[2, 0, 1]][:, [2, 0, 1]]
SPACING, ORIGIN = (0.7, 1.25, 3.0), (-12.5, 40.25, 7.0)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache folder of these tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_CACHE", str(folder))
        yield folder


def save(path, whole, compressed=False):
    """Writes (C, *spatial) by SimpleITK, oblique where it has three axes."""
    array = whole.T.squeeze(-1) if len(whole) == 1 else whole.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=len(whole) > 1)
    axes = whole.ndim - 1
    image.SetSpacing(SPACING[:axes])
    image.SetOrigin(ORIGIN[:axes])
    image.SetDirection((TILT if axes == 3 else TURN[:2, :2]).ravel().tolist())
    sitk.WriteImage(image, str(path), compressed)
    return path


def as_read_by_itk(path):
    """SimpleITK's array as (C, *spatial), and its affine as RAS+."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    channels, axes = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    whole = array.T if channels > 1 else array.T[None]
    affine = np.eye(4)
    affine[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[:axes, 3] = image.GetOrigin()
    affine[:2] *= -1
    return whole, affine


def assert_as_itk(path, *boxes_to_read):
    scan = open_scan(path)
    whole, affine = as_read_by_itk(path)
    assert_reads(scan, whole, boxes_to_read)
    np.testing.assert_allclose(scan.affine, affine, rtol=1e-6, atol=1e-6)
    assert scan.axes == "XYZ"[: len(scan.shape)]
    return scan


@given(
    st.data(),
    st.sampled_from(SUFFIXES),
    st.booleans(),
    st.sampled_from(TYPES),
    st.sampled_from([1, 3]),
    st.sampled_from([(9, 11), (5, 6, 7), (4, 5, 1), (1, 3, 2)]),
)
def test_boxes_and_affines_are_itks(tmp_path_factory, data, suffix, compressed, dtype, channels, shape):
    whole = numbers((channels, *shape), dtype)
    path = save(tmp_path_factory.mktemp("itk") / f"a{suffix}", whole, compressed)
    scan = assert_as_itk(path, data.draw(boxes(shape)))
    assert scan.anatomical == (len(shape) == 3) and scan.unit == "mm" and scan.dtype == dtype
    np.testing.assert_array_equal(scan.read(Box.of(shape)), whole)


def meta(path, array, data=None, compressed=False, **fields):
    """Writes a MetaImage by hand; ``array`` is stored as it is, its last axis fastest."""
    names = {"u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "f4": "FLOAT", "f8": "DOUBLE"}
    voxels = array.tobytes()
    voxels = zlib.compress(voxels) if compressed else voxels
    head = {"ObjectType": "Image", "NDims": array.ndim, "DimSize": " ".join(map(str, array.shape[::-1]))}
    head |= {"CompressedDataSize": len(voxels)} if compressed else {}
    head |= {"CompressedData": compressed, "BinaryDataByteOrderMSB": array.dtype.str[0] == ">"} | fields
    head |= {"ElementType": fields.get("ElementType", f"MET_{names[array.dtype.str[1:]]}")}
    head["ElementDataFile"] = data or "LOCAL"
    text = "".join(f"{key} = {value}\n" for key, value in head.items() if value is not None)
    path.write_bytes(text.encode() + (b"" if data else voxels))
    if data:
        (path.parent / data).write_bytes(voxels)
    return path


META = {
    "bare": {},
    "spacing": {"ElementSpacing": "0.5 0.6 2"},
    "size": {"ElementSize": "0.5 0.6 2"},
    "both": {"ElementSize": "9 9 9", "ElementSpacing": "0.5 0.6 2"},
    "position": {"Position": "1 2 3", "ElementSpacing": "0.5 0.6 2"},
    "columns": {
        "TransformMatrix": "0 1 0 0 0 1 1 0 0",
        "Offset": "1 2 3",
        "ElementSpacing": "0.5 0.6 2",
        "AnatomicalOrientation": "RAI",
        "CenterOfRotation": "4 5 6",
    },
    "rotation": {"Rotation": "0 1 0 -1 0 0 0 0 1", "ElementSpacing": "0.5 0.6 2"},
}


@pytest.mark.parametrize("case", META)
@pytest.mark.parametrize("compressed", [False, True])
def test_metaimage_headers_mean_what_itk_makes_of_them(tmp_path, case, compressed):
    array = numbers((4, 5, 6), "u2").astype(">u2")
    scan = assert_as_itk(
        meta(tmp_path / "a.mha", array, compressed=compressed, **META[case]), Box((1, 2, 1), (4, 3, 4))
    )
    assert scan.anatomical == (case in ("columns", "rotation"))
    assert scan.unit == ("pixel" if case == "bare" else "mm")


def test_metaimage_data_files(tmp_path):
    array = numbers((4, 5, 6), "i2")
    assert_as_itk(meta(tmp_path / "a.mhd", array, "a.raw"), Box((1, 2, 1), (4, 3, 4)))
    (tmp_path / "below").mkdir()
    assert_as_itk(meta(tmp_path / "b.mhd", array, "below/b.zraw", compressed=True))
    for skip in (100, -1):
        path = meta(tmp_path / "c.mhd", array, "c.raw", HeaderSize=skip)
        (tmp_path / "c.raw").write_bytes(bytes(100) + array.tobytes())
        assert_as_itk(path)
    path = meta(tmp_path / "d.mha", array)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n", 7).replace(b"LOCAL", b"Local"))
    assert_reads(open_scan(path), array.T[None], [])


def test_metaimage_units_and_a_fourth_axis(tmp_path):
    array = numbers((1, 4, 5, 6), "u1")
    matrix = " ".join(map(str, np.eye(4).ravel()))
    path = meta(
        tmp_path / "a.mha",
        array,
        ElementSpacing="2 2 3 1",
        DistanceUnits="um",
        TransformMatrix=matrix,
        Offset="1 2 3 4",
    )
    scan = open_scan(path)
    assert_reads(scan, array[0].T[None], [])
    assert scan.unit == "um" and scan.anatomical
    np.testing.assert_allclose(scan.affine[:3], np.array([[-2, 0, 0, -1], [0, -2, 0, -2], [0, 0, 3, 3]]) * 1e-3)


def nrrd(path, array, encoding="raw", data=None, **fields):
    """Writes a NRRD by hand; ``array`` is stored as it is, its last axis fastest."""
    encode = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(encoding, bytes)
    head = {
        "type": {"u": "u", "i": "", "f": ""}[array.dtype.kind]
        + {"f4": "float", "f8": "double"}.get(array.dtype.str[1:], f"int{8 * array.dtype.itemsize}"),
        "dimension": array.ndim,
        "sizes": " ".join(map(str, array.shape[::-1])),
        "endian": "big" if array.dtype.str[0] == ">" else "little",
        "encoding": encoding,
    }
    head |= {key.replace("_", " "): value for key, value in fields.items()}
    head |= {"data file": data} if data else {}
    text = "NRRD0005\n# made by hand\n" + "".join(f"{k}: {v}\n" for k, v in head.items() if v is not None)
    voxels = encode(array.tobytes())
    path.write_bytes(text.encode() + b"name:=DOE^JANE\n" + (b"" if data else b"\n" + voxels))
    if data:
        (path.parent / data).write_bytes(voxels)
    return path


OBLIQUE = "(0.5,0.1,0) (-0.1,0.6,0.2) (0,-0.3,2)"
NRRD = {
    "bare": {},
    "spacings": {"spacings": "0.5 0.6 2"},
    "axis mins": {"spacings": "0.5 0.6 2", "axis_mins": "1 2 3", "centers": "cell cell cell"},
    "nodes": {"spacings": "0.5 0.6 2", "axis_mins": "1 2 3", "centers": "node node node"},
    "LPS": {"space": "left-posterior-superior", "space_directions": OBLIQUE, "space_origin": "(1,2,3)"},
    "LAS": {"space": "LAS", "space_directions": OBLIQUE, "space_origin": "(1,2,3)"},
    "RAS": {
        "space": "right-anterior-superior",
        "space_directions": OBLIQUE,
        "space_origin": "(1,2,3)",
        "kinds": "domain space domain",
        "measurement_frame": "(1,0,0) (0,-1,0) (0,0,1)",
    },
    "right-handed": {"space": "3D-right-handed", "space_directions": OBLIQUE, "space_origin": "(1,2,3)"},
    "space dimension": {"space_dimension": "3", "space_directions": OBLIQUE, "space_origin": "(1,2,3)"},
}


@pytest.mark.parametrize("case", NRRD)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nrrd_headers_mean_what_itk_makes_of_them(tmp_path, case, encoding):
    array = numbers((4, 5, 6), "i2").astype(">i2")
    path = nrrd(tmp_path / "a.nrrd", array, encoding, **NRRD[case])
    if encoding == "bzip2":  # SimpleITK is built without it
        scan, affine = open_scan(path), as_read_by_itk(nrrd(tmp_path / "b.nrrd", array, **NRRD[case]))[1]
        assert_reads(scan, array.T[None], [Box((1, 2, 1), (4, 3, 4))])
        np.testing.assert_allclose(scan.affine, affine, rtol=1e-6, atol=1e-6)
    else:
        scan = assert_as_itk(path, Box((1, 2, 1), (4, 3, 4)))
    assert scan.anatomical == (case in ("LPS", "LAS", "RAS"))
    assert scan.unit == ("pixel" if case == "bare" else "mm")


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize(("kind", "channels"), [("RGB-color", 3), ("list", 5), ("vector", 2), ("3-color", 3)])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_nrrd_channels_lie_on_any_axis(tmp_path, encoding, kind, channels, place):
    whole = numbers((channels, 6, 5, 4), "u2")
    stored = np.moveaxis(whole, 0, place).T
    kinds, vectors = ["domain"] * 3, OBLIQUE.split()
    kinds.insert(place, kind)
    vectors.insert(place, "none")
    path = nrrd(
        tmp_path / "a.nrrd",
        np.ascontiguousarray(stored),
        encoding,
        kinds=" ".join(kinds),
        space="RAS",
        space_directions=" ".join(vectors),
        space_origin="(1,2,3)",
    )
    scan = open_scan(path)
    assert_reads(scan, whole, [Box((1, 2, 1), (4, 3, 4))])
    want = np.array([[0.5, -0.1, 0, 1], [0.1, 0.6, -0.3, 2], [0, 0.2, 2, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(scan.affine, want)
    if place == 0:
        assert_as_itk(path)


def test_nrrd_data_files_skips_and_units(tmp_path):
    array = numbers((4, 5, 6), "i2")
    assert_as_itk(nrrd(tmp_path / "a.nhdr", array, data="a.raw"))
    assert_as_itk(nrrd(tmp_path / "b.nhdr", array, "gzip", data="b.raw.gz"))
    path = nrrd(tmp_path / "c.nhdr", array, data="c.raw", byte_skip=3, line_skip=2)
    (tmp_path / "c.raw").write_bytes(b"one\ntwo\nabc" + array.tobytes())
    assert_as_itk(path)
    path = nrrd(tmp_path / "d.nhdr", array, data="d.raw", byte_skip=-1)
    (tmp_path / "d.raw").write_bytes(bytes(77) + array.tobytes())
    assert_as_itk(path)
    micro = {"space": "LPS", "space_directions": OBLIQUE, "space_units": '"um" "um" "um"'}
    scan = open_scan(nrrd(tmp_path / "e.nrrd", array, **micro))
    assert scan.unit == "um"
    np.testing.assert_allclose(scan.affine[:3, 0], [-0.5e-3, -0.1e-3, 0])
    flat = {"space": "LPS", "space_directions": "(0.5,0,0) (0,0,2)", "space_origin": "(1,2,3)"}
    scan = open_scan(nrrd(tmp_path / "f.nrrd", numbers((4, 5), "u1"), **flat))
    np.testing.assert_allclose(scan.affine, [[-0.5, 0, 0, -1], [0, 0, 1, -2], [0, 2, 0, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize("compressed", [False, True])
def test_threads_and_processes(tmp_path, compressed):
    whole = numbers((2, 30, 40, 50), "i2")
    scan = open_scan(save(tmp_path / "a.mha", whole, compressed))
    assert_threads_agree(scan, whole)
    assert_reads(pickle.loads(pickle.dumps(scan)), whole, [])


@pytest.mark.parametrize("slab", [20, 300, 40_000])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_copy_holds_one_slab_and_is_made_once(tmp_path, monkeypatch, caplog, cache, slab, channels):
    monkeypatch.setattr(itk, "SLAB_BYTES", slab)
    monkeypatch.setattr(itk, "CHUNK_BYTES", 500)
    monkeypatch.setattr(itk, "DEPTH", 4)
    whole = numbers((channels, 9, 7, 8), "u2", seed=slab)
    path = save(tmp_path / "DOE^JANE.nrrd", whole, compressed=True)
    taken = []
    take = itk._take
    monkeypatch.setattr(itk, "_take", lambda stream, size, name: taken.append(size) or take(stream, size, name))
    before = set(cache.iterdir())
    with caplog.at_level(logging.INFO, "medseg"):
        assert_reads(open_scan(path), whole, [Box((1, 2, 3), (9, 6, 7))])
    assert max(taken) <= slab and sum(taken) == whole.nbytes
    assert "is one gzip stream" in caplog.text and str(path) in caplog.text
    made = {p.suffix for p in set(cache.iterdir()) - before}
    assert made == {".zarr", ".lock"} and not any("DOE" in p.name for p in cache.iterdir())
    assert_reads(open_scan(path), whole, [])
    assert sum(taken) == whole.nbytes


def test_a_copy_that_is_damaged_or_of_another_file_is_made_again(tmp_path, cache):
    whole = numbers((1, 13, 17, 19), "u2", seed=5)
    path = save(tmp_path / "a.mha", whole, compressed=True)
    before = set(cache.iterdir())
    assert_reads(open_scan(path), whole, [])
    copy = next(p for p in set(cache.iterdir()) - before if p.suffix == ".zarr")
    (copy / "zarr.json").write_text("{")
    assert_reads(open_scan(path), whole, [])
    other = numbers((1, 13, 17, 19), "u2", seed=6)
    assert_reads(open_scan(save(path, other, compressed=True)), other, [])


def test_a_compressed_scan_needs_a_cache_folder(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mha", numbers((1, 5, 6, 7), "u2"), compressed=True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="set MEDSEG_CACHE to a folder of yours"):
        open_scan(path).read(Box.of((5, 6, 7)))


U1 = numbers((4, 5, 6), "u1")
BAD = {
    "meta type": (lambda p: meta(p / "a.mha", U1, ElementType="MET_HALF"), "its ElementType «MET_HALF» is unknown"),
    "meta text": (lambda p: meta(p / "a.mha", U1, BinaryData="False"), "as text"),
    "meta sizes": (lambda p: meta(p / "a.mha", U1, DimSize="6 5"), "its «DimSize» is not 3"),
    "meta words": (lambda p: meta(p / "a.mha", U1, DimSize="6 5 four"), "its «DimSize» is not 3"),
    "meta zero": (lambda p: meta(p / "a.mha", U1, DimSize="6 5 0"), "has no voxels"),
    "meta spacing": (lambda p: meta(p / "a.mha", U1, ElementSpacing="1 0 1"), "is not positive"),
    "meta singular": (lambda p: meta(p / "a.mha", U1, TransformMatrix="1 0 0 1 0 0 0 0 1"), "singular"),
    "meta tube": (lambda p: meta(p / "a.mha", U1, ObjectType="Tube"), "is a MetaIO Tube"),
    "meta times": (lambda p: meta(p / "a.mha", numbers((2, 4, 5, 6), "u1")), "has 4 axes"),
    "meta list": (lambda p: meta(p / "a.mhd", U1, "LIST"), "in several files"),
    "meta pattern": (lambda p: meta(p / "a.mhd", U1, "a%03d.raw 1 4 1"), "in several files"),
    "meta above": (lambda p: meta(p / "a.mhd", U1, "../a.raw"), "outside its folder"),
    "meta absolute": (lambda p: meta(p / "a.mhd", U1, str(p / "a.raw")), "outside its folder"),
    "meta missing": (
        lambda p: (meta(p / "a.mhd", U1, "a.raw"), (p / "a.raw").unlink()),
        "its data file a.raw is missing",
    ),
    "meta short": (lambda p: meta(p / "a.mha", U1, DimSize="6 5 5"), "cut short"),
    "meta long": (lambda p: meta(p / "a.mhd", U1, "a.raw", DimSize="6 5 3"), "a.raw holds 120"),
    "meta no end": (
        lambda p: (p / "a.mha").write_text("NDims = 3\nDimSize = 1 2 3\n"),
        "does not end with ElementData",
    ),
    "meta zipped short": (lambda p: meta(p / "a.mha", U1, compressed=True, DimSize="6 5 5"), "end 30 bytes too early"),
    "meta zipped long": (lambda p: meta(p / "a.mha", U1, compressed=True, DimSize="6 5 3"), "more voxels than"),
    "meta not zipped": (lambda p: meta(p / "a.mha", U1, CompressedData="True"), "damaged or cut short"),
    "nrrd type": (lambda p: nrrd(p / "a.nrrd", U1, type="block"), "its type «block» is unknown"),
    "nrrd endian": (lambda p: nrrd(p / "a.nrrd", U1.astype("i2"), endian=None), "does not say its endian"),
    "nrrd text": (lambda p: nrrd(p / "a.nrrd", U1, encoding="ascii"), "encoding «ascii» is not supported"),
    "nrrd space": (lambda p: nrrd(p / "a.nrrd", U1, space="inside-out"), "its space «inside-out» is not known"),
    "nrrd moving": (lambda p: nrrd(p / "a.nrrd", U1, space="RAST"), "its space «rast» is not known"),
    "nrrd times": (
        lambda p: nrrd(p / "a.nrrd", numbers((2, 4, 5, 6), "u1"), kinds="domain domain domain time"),
        "2 points in time",
    ),
    "nrrd axes": (lambda p: nrrd(p / "a.nrrd", numbers((2, 4, 5, 6), "u1")), "no image of two or three spatial axes"),
    "nrrd kind": (lambda p: nrrd(p / "a.nrrd", U1, kinds="domain domain complex"), "of kind «complex»"),
    "nrrd vectors": (
        lambda p: nrrd(p / "a.nrrd", U1, space="RAS", space_directions="(1,0,0) (0,1,0)"),
        "not 3 vectors",
    ),
    "nrrd words": (
        lambda p: nrrd(p / "a.nrrd", U1, space="RAS", space_directions="(1,0,0) (0,a,0) (0,0,1)"),
        "numbers",
    ),
    "nrrd pattern": (lambda p: nrrd(p / "a.nhdr", U1, data="a%02d.raw 1 4 1"), "in several files"),
    "nrrd list": (lambda p: nrrd(p / "a.nhdr", U1, data="LIST"), "in several files"),
    "nrrd above": (lambda p: nrrd(p / "a.nhdr", U1, data="../a.raw"), "outside its folder"),
    "nrrd short": (lambda p: nrrd(p / "a.nrrd", U1, sizes="6 5 5"), "cut short"),
    "nrrd zipped short": (lambda p: nrrd(p / "a.nrrd", U1, "gzip", sizes="6 5 5"), "end 30 bytes too early"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_refused_in_one_sentence(tmp_path, case):
    (tmp_path / "x").mkdir()
    make, words = BAD[case]
    make(tmp_path / "x")
    path = next(p for p in (tmp_path / "x").iterdir() if p.suffix in SUFFIXES)
    with pytest.raises(ScanError, match=words) as error:
        scan = open_scan(path)
        scan.read(Box.of(scan.shape))
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 400
    assert "DOE" not in str(error.value)


@pytest.mark.parametrize("encoding", ["gzip", "bzip2"])
def test_a_stream_that_is_cut_short_or_damaged(tmp_path, cache, encoding):
    path = nrrd(tmp_path / "a.nrrd", numbers((9, 20, 30), "i2"), encoding)
    whole, before = path.read_bytes(), set(cache.glob("*.zarr"))
    for content in (whole[:-500], whole[:-4] + b"\0\1\2\3"):
        path.write_bytes(content)
        scan = open_scan(path)
        with pytest.raises(ScanError, match=r"damaged or cut short|too early"):
            scan.read(Box.of(scan.shape))
    assert set(cache.glob("*.zarr")) == before and not list(cache.glob(".*.partial"))


@pytest.mark.parametrize("name", ["elastix_mha/**/*.mh[ad]", "dicom_seg_rt/**/*.nrrd"])
def test_real_files(real_data, name):
    for path in sorted(real_data.glob(name)):
        assert_as_itk(path)
