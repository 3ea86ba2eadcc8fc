import gzip

import pytest
from scan_laws import numbers

from medseg.errors import ScanError
from medseg.scans import gz
from medseg.scans.gz import GzipBytes

CONTENT = numbers(1_000_000, "u1").tobytes()


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """A stream of ten blocks, whose index is kept in a folder of its own."""
    monkeypatch.setattr(gz, "LEAST_BLOCK_BYTES", 100_000)
    monkeypatch.setattr(gz, "KEPT_FROM_BYTES", 1)
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "DOE^JANE.nii.gz"
    path.write_bytes(gzip.compress(CONTENT, 1))
    return path


def opened(path):
    return GzipBytes(path, "a.gz", len(CONTENT))


def kept(path):
    folder = path.parent / "cache"
    return sorted(folder.iterdir()) if folder.exists() else []


def assert_whole(file):
    for offset in (990_000, 5, 450_000, 0, 999_999):
        size = min(200_000, len(CONTENT) - offset)
        assert file.pread(size, offset).tobytes() == CONTENT[offset : offset + size]


def test_the_index_is_kept_once_the_end_is_reached(stream):
    file = opened(stream)
    file.pread(10, 300_000)
    assert not kept(stream)
    assert_whole(file)
    assert [p.suffix for p in kept(stream)] == [".gzidx"] and "DOE" not in kept(stream)[0].name
    index = kept(stream)[0].read_bytes()
    again = opened(stream)
    assert_whole(again)
    assert [p.read_bytes() for p in kept(stream)] == [index]


def test_a_kept_index_spares_the_first_pass(stream, monkeypatch):
    assert_whole(opened(stream))
    asked = []
    save = gz.KeptIndex.save
    monkeypatch.setattr(gz.KeptIndex, "save", lambda self, file: asked.append(self._place) or save(self, file))
    file = opened(stream)
    file.pread(10, 950_000)
    assert asked == [None]


@pytest.mark.parametrize("damage", [b"", b"nonsense", "cut", "flip", "other"])
def test_an_index_that_is_not_this_files_is_made_again(stream, damage):
    assert_whole(opened(stream))
    place = kept(stream)[0]
    whole = place.read_bytes()
    if damage == "cut":
        place.write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        place.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    elif damage == "other":
        stream.write_bytes(gzip.compress(CONTENT[::-1], 1))
        file = opened(stream)
        assert file.pread(9, 990_000).tobytes() == CONTENT[::-1][990_000:990_009]
        return
    else:
        place.write_bytes(damage)
    assert_whole(opened(stream))
    assert place.read_bytes() == whole


def test_it_goes_without_a_folder(stream, monkeypatch):
    (stream.parent / "file").touch()
    monkeypatch.setenv("MEDSEG_CACHE", str(stream.parent / "file" / "cache"))
    assert_whole(opened(stream))


def test_a_short_stream_keeps_nothing(stream, monkeypatch):
    monkeypatch.setattr(gz, "KEPT_FROM_BYTES", len(CONTENT) + 1)
    assert_whole(opened(stream))
    assert not kept(stream)


def test_a_stream_that_is_cut_short(stream):
    stream.write_bytes(stream.read_bytes()[:-5000])
    with pytest.raises(ScanError, match=r"a\.gz: the gzip stream is cut short: 1000000 bytes are expected"):
        opened(stream).pread(10, 999_990)
