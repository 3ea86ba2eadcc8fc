import os
import stat

import pytest

from medseg.errors import ConfigError
from medseg.scans.cache_folder import cache_folder, key_of


def test_the_folder_is_where_the_environment_says_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MEDSEG_CACHE", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "medseg"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "medseg"
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == cache_folder() == tmp_path / "a" / "b"
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        ConfigError, match=r"file/cache: the cache folder cannot be made \(Not a directory\); set MEDSEG"
    ):
        cache_folder()
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="is not yours to write"):
        cache_folder()


def test_a_key_changes_with_the_contents_and_says_nothing_of_the_name(tmp_path):
    path, other = tmp_path / "DOE^JANE.bin", tmp_path / "other.bin"
    path.write_bytes(b"a" * 300_000)
    os.utime(path, ns=(1, 1))
    before = key_of(path)
    assert before == key_of(path) and len(before) == 64
    path.rename(other)
    assert key_of(other) == before
    other.write_bytes(b"a" * 299_999 + b"b")
    os.utime(other, ns=(1, 1))
    assert key_of(other) != before
    other.write_bytes(b"a" * 300_000)
    os.utime(other, ns=(2, 2))
    assert key_of(other) != before
