"""Several processes on one scan: the bytes of one, and nothing lost with one of them."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_jobs import CELL, Killed, build_model, files_of, job_of, kill, noise, voxels_of, write_nii

from medseg import Box
from medseg.errors import MedsegError, ScanError
from medseg.inference import workers as module
from medseg.inference.ensemble import Ensemble
from medseg.inference.lock import held
from medseg.inference.model import Options
from medseg.inference.settings import InferenceSettings
from medseg.inference.workers import Workers
from medseg.scans.preprocessing import Normalization, Preprocessing

SPACING = (1.2, 1.2, 1.5)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("zyx", [25, -12, 8], degrees=True).as_matrix() @ np.diag([-0.9, 1.4, 2.1])
TILES = Options(InferenceSettings(mode="tile-overlap"), window=(28,), batch=2, probabilities="uint8")
WINDOWS = Options(InferenceSettings(mode="sliding-window", roi=[8]), batch=3, probabilities="uint8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def model(place):
    """Two models that answer together, since each worker must hold both."""
    views = Preprocessing(spacing_mm=SPACING, normalize=Normalization(kind="none"))
    return Ensemble.of(
        [build_model(place / str(n), 3, n, preprocessing=views, padding="same", width=2) for n in range(2)]
    )


@pytest.fixture(scope="module")
def workers(model):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with Workers(2, model) as both:
        yield both
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scans(place):
    """One on the model's own grid, and one that is turned and resampled."""
    straight = np.diag([*SPACING, 1])
    voxels = noise(26, 20, 18)
    return {
        "own": write_nii(place / "own.nii", straight, voxels),
        "resampled": write_nii(place / "resampled.nii.gz", OBLIQUE, voxels),
    }


@pytest.mark.parametrize(
    ("grid", "suffix", "options"),
    [
        ("own", ".ome.zarr", TILES),
        ("own", ".tif", TILES),
        ("resampled", ".ome.zarr", TILES),  # every box is written into the one chunk
        ("resampled", ".nii.gz", WINDOWS),
        ("own", ".ome.zarr", WINDOWS),
        ("own", ".nii", replace(WINDOWS, part=Box((3, 2, 1), (20, 9, 18)))),
    ],
)
def test_two_give_the_bytes_of_one(workers, model, scans, tmp_path, grid, suffix, options):
    one, two = (job_of(scans[grid], model, options, tmp_path / name / f"a{suffix}") for name in ("one", "two"))
    alone, seen = one.run(), []
    together = two.run(lambda progress: seen.append((progress.done, progress.tiles)), loop=workers)
    assert files_of(one.output.parent) == files_of(two.output.parent)
    assert set(np.unique(voxels_of(two.output))) == {0, CELL}
    assert replace(alone.plan, host_bytes=0) == replace(together.plan, host_bytes=0)
    assert together.progress.tiles == together.progress.done == alone.progress.tiles
    assert together.progress.write.bytes == alone.progress.write.bytes
    assert seen == sorted(seen)
    assert seen[-1] == (alone.progress.tiles, alone.progress.tiles)


def test_a_worker_s_error_is_the_user_s_and_the_others_stop(workers, model, scans, tmp_path):
    voxels = noise(26, 20, 18)
    voxels[25, 3, 2] = np.nan
    spoiled = write_nii(tmp_path / "spoiled.nii", np.diag([*SPACING, 1]), voxels)
    job = job_of(spoiled, model, TILES)
    with pytest.raises(ScanError, match=r"spoiled\.nii has nan at \(0, 25, 3, 2\)"):
        job.run(loop=workers)
    assert not job.output.exists()
    with held(job.output):  # no worker is at it any more
        pass


def test_interrupted_in_the_middle_it_goes_on(workers, model, scans, tmp_path, monkeypatch):
    clean, torn = (job_of(scans["own"], model, TILES, tmp_path / name / "a.tif") for name in ("clean", "torn"))
    clean.run()
    kill(torn, 2)

    def interrupted(progress):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOK_SECONDS", 0)
        with pytest.raises(Killed):
            job_of(scans["own"], model, TILES, torn.output).run(interrupted, loop=workers)
    with held(torn.output):
        pass
    result = job_of(scans["own"], model, TILES, torn.output).run(loop=workers)
    assert result.resumed_tiles >= 2
    assert files_of(clean.output.parent) == files_of(torn.output.parent)


def test_a_worker_that_is_killed_is_told_and_replaced(workers, model, scans, tmp_path, monkeypatch):
    clean, torn = (job_of(scans["own"], model, TILES, tmp_path / name / "a.tif") for name in ("clean", "torn"))
    clean.run()
    kill(torn, 2)

    one = []

    def kill_one(progress):
        if not one:
            one.extend(workers._pool._processes)
            os.kill(one[0], signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOK_SECONDS", 0)
        with pytest.raises(MedsegError, match=r"a worker was killed.*start again to go on"):
            job_of(scans["own"], model, TILES, torn.output).run(kill_one, loop=workers)
    assert not torn.output.exists()
    result = job_of(scans["own"], model, TILES, torn.output).run(loop=workers)
    assert result.resumed_tiles >= 2
    assert files_of(clean.output.parent) == files_of(torn.output.parent)
