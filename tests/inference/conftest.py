"""Small packages, and scans' files."""

import pytest
import tifffile
from small_jobs import build_model, noise, write_nii


@pytest.fixture
def model_of(tmp_path):
    """Writes and loads packages; see :func:`small_jobs.build_model`."""
    return lambda *arguments, name="model", **more: build_model(tmp_path / name, *arguments, **more)


@pytest.fixture
def tif(tmp_path):
    """Writes noise as a TIFF."""

    def write(name="a.tif", shape=(60, 52), seed=0):
        tifffile.imwrite(tmp_path / name, noise(*shape, seed=seed))
        return tmp_path / name

    return write


@pytest.fixture
def nii(tmp_path):
    """Writes noise as a NIfTI of this affine."""
    return lambda affine, shape=(15, 12, 10): write_nii(tmp_path / "a.nii.gz", affine, noise(*shape))
