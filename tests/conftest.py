"""What tests of several floors share."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("medseg", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("medseg")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real_data():
    """The folder of real images; a test that asks for it is skipped where it is missing."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"{REAL_DATA} is missing")
    return REAL_DATA
