import json
import pickle

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scan_laws import assert_reads, assert_threads_agree, boxes, numbers

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans.cache import LEAST_BYTES, PIECES
from medseg.scans.scan import open_scan

SCALE = [{"type": "scale", "scale": [1, 1, 2.0, 0.5, 0.25]}]


def ome(path, array, axes, version="0.5", steps=None, group_steps=None, **options):
    """An OME-Zarr of either version; axes are (name, type, unit)."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format, overwrite=True)
    group.create_array("0", data=array, chunks=tuple(min(n, 7) for n in array.shape), **options)
    names = ("name", "type", "unit")
    image = {
        "axes": [{k: v for k, v in zip(names, axis, strict=False) if v} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": steps or []}],
    }
    if group_steps:
        image["coordinateTransformations"] = group_steps
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image | {"version": "0.4"}]
    return path


SPACE = [("z", "space", "micrometer"), ("y", "space", "micrometer"), ("x", "space", "micrometer")]
TIME, CHANNEL = ("t", "time"), ("c", "channel")


@given(
    st.data(),
    st.sampled_from(["u1", ">u2", "i4", "f4", "?"]),
    st.sampled_from([(20, 30), (9, 20, 30)]),
    st.sampled_from([2, 3]),
)
def test_a_plain_array_is_one_channel(tmp_path_factory, data, dtype, shape, zarr_format):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    array = numbers(shape, "u1").astype(dtype)
    zarr.create_array(path, data=array, chunks=(8,) * len(shape), zarr_format=zarr_format)
    scan = open_scan(path)
    assert_reads(scan, array[None], [data.draw(boxes(shape))])
    assert (scan.unit, scan.axes, scan.spacing_mm) == ("pixel", "ZYX"[-len(shape) :], (1.0,) * len(shape))
    np.testing.assert_array_equal(scan.affine, np.eye(4))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5)])
def test_a_plain_array_of_other_axes_is_refused(tmp_path, shape):
    zarr.create_array(tmp_path / "a.zarr", data=numbers(shape, "u1"))
    with pytest.raises(ScanError, match=r"only two or three axes are taken for one channel: add OME metadata"):
        open_scan(tmp_path / "a.zarr")


@given(
    st.data(),
    st.sampled_from(["0.4", "0.5"]),
    st.sampled_from(["CZYX", "ZYXC", "TCZYX", "YX", "CYX", "ZYX", "XYZ", "TZYX"]),
)
def test_ome_boxes_are_slices(tmp_path_factory, data, version, order):
    path = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    lengths = {"T": 1, "C": 3, "Z": 5, "Y": 12, "X": 17}
    kinds = {"T": "time", "C": "channel"}
    array = numbers([lengths[a] for a in order], "u2")
    ome(path, array, [(a.lower(), kinds.get(a, "space")) for a in order], version)
    scan = open_scan(path)
    whole = array.squeeze(0) if "T" in order else array
    kept = order.replace("T", "")
    whole = np.moveaxis(whole, kept.index("C"), 0) if "C" in kept else whole[None]
    assert_reads(scan, whole, [data.draw(boxes(scan.shape))])
    assert scan.axes == kept.replace("C", "") and not scan.anatomical


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_spacing_and_origin_in_millimetres(tmp_path, version):
    level = [{"type": "scale", "scale": [2.0, 0.5, 0.25]}, {"type": "translation", "translation": [10, 20, 30]}]
    whole = [{"type": "scale", "scale": [2.0, 1, 1]}, {"type": "translation", "translation": [1, 0, 0]}]
    scan = open_scan(ome(tmp_path / "a.ome.zarr", numbers((3, 4, 5), "u1"), SPACE, version, level, whole))
    assert scan.unit == "um"
    want = np.array([[4e-3, 0, 0, 21e-3], [0, 5e-4, 0, 20e-3], [0, 0, 2.5e-4, 30e-3], [0, 0, 0, 1]])
    np.testing.assert_allclose(scan.affine, want)


def test_units(tmp_path):
    scale = [{"type": "scale", "scale": [2.0, 500, 250]}]
    axes = [("z", "space", "micrometer"), ("y", "space", "nanometer"), ("x", "space", "nanometer")]
    scan = open_scan(ome(tmp_path / "a.zarr", numbers((3, 4, 5), "u1"), axes, steps=scale))
    assert scan.unit == "mm"
    assert scan.spacing_mm == pytest.approx([2e-3, 5e-4, 2.5e-4])
    bare = [("z", "space"), ("y", "space"), ("x", "space")]
    scan = open_scan(ome(tmp_path / "b.zarr", numbers((3, 4, 5), "u1"), bare, steps=scale))
    assert scan.unit == "pixel"
    assert scan.spacing_mm == pytest.approx([2, 500, 250])


def test_threads_and_processes(tmp_path):
    array = numbers((9, 40, 50), "u2")
    scan = open_scan(ome(tmp_path / "a.zarr", array, SPACE))
    assert_threads_agree(scan, array[None])
    assert_reads(pickle.loads(pickle.dumps(scan)), array[None], [])


def test_a_chunk_that_was_never_written_is_the_fill_value(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(50, 60), chunks=(10, 10), dtype="u1", fill_value=7)
    assert (open_scan(tmp_path / "a.zarr").read(Box((5, 5), (25, 30))) == 7).all()


def edit(path, change):
    meta = json.loads((path / "zarr.json").read_text())
    change(meta["attributes"]["ome"]["multiscales"][0])
    (path / "zarr.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / "zarr.json").write_text("{"), "damaged or no Zarr"),
        (lambda p: (p / "0" / "zarr.json").unlink(), "damaged or no Zarr"),
        (lambda p: edit(p, lambda m: m["datasets"][0].update(path="../b")), "outside its folder"),
        (lambda p: edit(p, lambda m: m["datasets"][0].update(path="/etc")), "outside its folder"),
        (lambda p: edit(p, lambda m: m["axes"].pop()), "no image of two or three"),
        (lambda p: edit(p, lambda m: m["axes"][0].update(type="time")), "3 points in time"),
        (
            lambda p: edit(p, lambda m: m.update(coordinateTransformations=[{"type": "affine"}])),
            "«affine» is not supported",
        ),
        (
            lambda p: edit(p, lambda m: m.update(coordinateTransformations=[{"type": "scale", "scale": [0, 1, 1]}])),
            "singular",
        ),
        (lambda p: edit(p, lambda m: m.clear()), "damaged or no Zarr"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, change, words):
    path = ome(tmp_path / "a.ome.zarr", numbers((3, 4, 5), "u1"), SPACE)
    change(path)
    with pytest.raises(ScanError, match=words) as error:
        open_scan(path)
    assert str(path) in str(error.value)


def test_a_damaged_chunk(tmp_path):
    path = ome(tmp_path / "a.zarr", numbers((3, 4, 5), "u1"), SPACE)
    (path / "0" / "c" / "0" / "0" / "0").write_bytes(b"nonsense")
    with pytest.raises(ScanError, match="cannot be read"):
        open_scan(path).read(Box.of((3, 4, 5)))


def test_a_group_without_an_image(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(ScanError, match="without an OME multiscale image"):
        open_scan(tmp_path / "a.zarr")


class Trap:
    """What a foreign pickle does when it is loaded."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_is_stored_can_run(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=numbers((4, 4), "u1"), zarr_format=2, compressors=None)
    meta = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    meta["filters"] = [{"id": "pickle", "protocol": 5}]
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(meta))
    (tmp_path / "a.zarr" / "0.0").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ScanError, match=r"a\.zarr: "):
        open_scan(tmp_path / "a.zarr").read(Box.of((4, 4)))
    assert not Trap.sprung
    meta["filters"] = [{"id": "base64"}]
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(meta))
    with pytest.raises(ScanError, match="is stored by base64, which is not supported; store it by zstd or blosc"):
        open_scan(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "codec", [numcodecs.Zstd(), numcodecs.Blosc(), numcodecs.LZ4(), numcodecs.GZip(), numcodecs.Zlib(), None]
)
def test_common_codecs_of_zarr_2(tmp_path, codec):
    array = numbers((20, 30), "u2")
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(8, 8), zarr_format=2, compressors=codec)
    assert_reads(open_scan(tmp_path / "a.zarr"), array[None], [Box((3, 4), (9, 30))])


LAYOUTS = {
    "zarr 2": {"zarr_format": 2, "chunks": (3, 8, 7)},
    "zarr 2, Fortran": {"zarr_format": 2, "chunks": (3, 8, 7), "order": "F"},
    "zarr 3": {"zarr_format": 3, "chunks": (3, 8, 7)},
    "shards": {"zarr_format": 3, "chunks": (3, 4, 5), "shards": (6, 8, 20)},
    "one chunk": {"zarr_format": 3, "chunks": (9, 20, 30)},
}


@pytest.mark.filterwarnings("ignore")
@given(
    st.data(),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(["?", "i1", ">u2", ">i4", "f2", ">f4", "f8"]),
    st.sampled_from([None, 0, 1 << 30]),
    st.booleans(),
)
def test_boxes_are_zarrs_own_slices(tmp_path_factory, data, layout, dtype, budget, holes):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    shape = (9, 20, 30)
    array = zarr.create_array(path, shape=shape, dtype=dtype, fill_value=1, **LAYOUTS[layout])
    whole = numbers(shape, "u1").astype(dtype)
    part = data.draw(boxes(shape)) if holes else Box.of(shape)
    array[part.slices] = whole[part.slices]
    asked = data.draw(st.lists(boxes(shape), max_size=3))
    scan = open_scan(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PIECES, "budget", PIECES.budget if budget is None else budget)
        assert_reads(scan, np.asarray(array[:])[None].astype(scan.dtype), asked)


@pytest.mark.parametrize("layout", ["zarr 2", "zarr 3", "shards"])
def test_a_chunk_is_decoded_once_however_windows_overlap(tmp_path, layout):
    whole = numbers((9, 20, 30), "u2")
    zarr.create_array(tmp_path / "a.zarr", data=whole, **LAYOUTS[layout])
    scan, before = open_scan(tmp_path / "a.zarr"), PIECES.made
    for start in range(20):
        scan.read(Box((0, start, 3), (9, start + 1, 29)))
        scan.read(Box((2, max(0, start - 5), 0), (8, start + 1, 30)))
    chunks = [-(-n // c) for n, c in zip(whole.shape, LAYOUTS[layout]["chunks"], strict=True)]
    assert PIECES.made - before == np.prod(chunks)


@pytest.mark.parametrize("fill", [7.0, np.nan])
def test_missing_chunks_cost_next_to_nothing(tmp_path, fill):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(640, 640), chunks=(64, 64), dtype="f8", fill_value=fill)
    array[0, 0] = 1
    scan, before = open_scan(tmp_path / "a.zarr"), PIECES.nbytes
    np.testing.assert_array_equal(scan.read(Box.of((640, 640)))[0], array[:])
    assert PIECES.nbytes - before <= 64 * 64 * 8 + 100 * LEAST_BYTES
