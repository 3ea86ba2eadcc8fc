"""A cache of the test's own."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEDSEG_CACHE", str(folder))
    return folder
