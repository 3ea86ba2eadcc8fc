"""What tests of several floors share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker of several, and what it starts, computes with one thread: more would wait for each other's turns on the
    # processor. It counts only before PyTorch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("medseg", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("medseg")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """A cache and settings of the session's own, inherited by the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MEDSEG_CONFIG", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture
def real_data():
    """The folder of real images; a test that asks for it is skipped where it is missing."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"{REAL_DATA} is missing")
    return REAL_DATA
