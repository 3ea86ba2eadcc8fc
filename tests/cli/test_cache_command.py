import os
import time

import pytest

from medseg.preparing.write import turn


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with something of every kind, half of it old, and a file of nobody's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDSEG_CACHE", str(folder))
    sizes = {
        "checks/a.json": 100,
        "checks/b.json": 50,
        "statistics/c.json": 30,
        "d.gzidx": 2048,
        "e.zarr/zarr.json": 20,
        "weights-f": 10,
        "prepared/.gg.partial/image/zarr.json": 1000,
        "prepared/hh/voxels.npy": 500,
        "salt": 7,
    }
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    long_ago = time.time() - 40 * 86400
    for name in ("checks/b.json", "d.gzidx"):
        os.utime(folder / name, (long_ago, long_ago))
    return folder


def test_the_list_has_every_kind_and_the_sum(medseg, cache):
    code, out, _ = medseg("cache", "list")
    assert code == 0
    for kind in ("facts", "statistics", "indices", "copies", "weights", "prepared"):
        assert kind in out
    assert f"{cache}: {3.7}KiB" in out


def test_clear_frees_what_it_says(medseg, cache):
    out = medseg("cache", "clear", "--kind", "facts")[1]
    assert out.splitlines() == ["facts: 2 removed, 150B freed", "150B freed"]
    assert not list((cache / "checks").iterdir())
    assert (cache / "d.gzidx").exists()


def test_clear_by_age(medseg, cache):
    assert medseg("cache", "clear", "--older-than", "30d")[1].splitlines()[-1] == "2.1KiB freed"
    assert [path.name for path in (cache / "checks").iterdir()] == ["a.json"]
    assert medseg("cache", "clear", "--older-than", "6w")[1] == "0B freed\n"


def test_clear_takes_all_that_can_be_made_again_and_nothing_else(medseg, cache):
    assert medseg("cache", "clear")[0] == 0
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["salt"]


def test_what_is_being_prepared_is_left(medseg, cache):
    with turn("gg", wait=True):
        code, _, said = medseg("cache", "clear", "--kind", "prepared")
    assert code == 0
    assert said.strip().endswith("preparing them: 1")
    assert (cache / "prepared" / ".gg.partial").exists()
    assert not (cache / "prepared" / "hh").exists()


def test_mistakes_are_one_sentence(refused, medseg, cache, monkeypatch):
    assert "did you mean 'facts'" in refused("cache", "clear", "--kind", "fact")
    assert "such as 12h, 30d or 2w" in refused("cache", "clear", "--older-than", "soon")
    assert "clear" in medseg("cache")[1]
    monkeypatch.setenv("MEDSEG_CACHE", str(cache / "salt" / "below"))
    assert "set MEDSEG_CACHE" in refused("cache", "list")
