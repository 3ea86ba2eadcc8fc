"""From file to file: the law of the whole chain, and what a job survives."""

import errno
import json
import os
import warnings
from dataclasses import replace

import monai.transforms as mt
import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
import zarr
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation
from small_jobs import CELL, Killed, files_of, job_of, kill, noise, voxels_of

from medseg import Box, Tiling, open_scan
from medseg.errors import GridError, OutputError, ScanError, TileError
from medseg.inference.budget import Budget
from medseg.inference.decode import Decoder
from medseg.inference.emit import Output
from medseg.inference.infer import probabilities_path
from medseg.inference.model import Options
from medseg.inference.settings import InferenceSettings
from medseg.inference.source import Source
from medseg.scans.header import HeaderScan
from medseg.scans.mirror import read_mirrored
from medseg.scans.preprocessing import Normalization, Preprocessing

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("zyx", [25, -12, 8], degrees=True).as_matrix() @ np.diag([-0.9, 1.4, 2.1])
OBLIQUE[:3, 3] = [-31.5, 12.25, 80]
FLIPPED = np.array([[0, 0, 1.1, 5], [-0.8, 0, 0, -3], [0, -1.7, 0, 9], [0, 0, 0, 1]])
ANISOTROPIC = np.diag([0.7, 0.9, 3.0, 1])


def in_memory(network, view):
    """(K, \\*shape) probabilities of a whole view (C, \\*shape), in one pass."""
    scan = open_scan(view)
    tile = Tiling.whole(scan.shape, network.footprint)[0]
    with torch.inference_mode():
        logits = network.core(torch.from_numpy(read_mirrored(scan, tile.read))[None])[0]
    return Decoder("softmax").probabilities(logits[(slice(None), *tile.keep.slices)])


def shares_and_labels(output, network):
    return voxels_of(probabilities_path(output)), voxels_of(output)[0]


@pytest.mark.parametrize(
    ("affine", "spacing"),
    [(OBLIQUE, (1.2, 1.2, 1.5)), (FLIPPED, None), (ANISOTROPIC, (1.0, 1.0, 1.6)), (FLIPPED, (1.3, 0.7, 1.3))],
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_file_s_mask_is_that_of_monai_s_chain_in_memory(model_of, nii, affine, spacing, padding):
    """Orientation, Spacing, NormalizeIntensity, one pass, SpatialResample of the probabilities, arg-max."""
    path = nii(affine)
    preprocessing = Preprocessing(spacing_mm=spacing)
    model = model_of(3, preprocessing=preprocessing, padding=padding)
    tiles = InferenceSettings(mode="tile-overlap")
    job = job_of(path, model, Options(tiles, window=(24,), batch=2, probabilities="float32"))
    result = job.run()
    assert result.plan.tiles > 1
    image = nib.load(path)
    chain = [mt.Orientation(axcodes="RAS")]
    chain += [mt.Spacing(pixdim=spacing, mode="bilinear")] if spacing else []
    chain += [mt.NormalizeIntensity(channel_wise=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = mt.Compose(chain)(MetaTensor(image.get_fdata()[None], affine=torch.from_numpy(image.affine)))
        shares = in_memory(model.network, seen.numpy().astype(np.float32)).double()
        back = mt.SpatialResample(mode="bilinear", padding_mode="border", align_corners=False, dtype=torch.float64)
        wanted = back(
            MetaTensor(shares, affine=seen.affine),
            dst_affine=torch.from_numpy(image.affine),
            spatial_size=image.shape,
        ).numpy()
    found, labels = shares_and_labels(job.output, model.network)
    assert np.abs(found - wanted).max() < 1e-4
    sure = np.abs(wanted[0] - wanted[1]) > 1e-3
    assert (labels == np.where(wanted[1] > wanted[0], CELL, 0))[sure].all()
    assert 0.05 < (labels[sure] == CELL).mean() < 0.95
    np.testing.assert_allclose(nib.load(job.output).affine, image.affine, atol=1e-6)


def test_statistics_are_measured_once(model_of, tif, monkeypatch):
    path, model = tif(), model_of(preprocessing=Preprocessing(normalize=Normalization(kind="zscore")))
    first = Source.open(path, model, Options()).view.rescale
    values = tifffile.imread(path)
    assert first.shift == pytest.approx([values.mean(dtype=np.float64)])
    with monkeypatch.context() as patch:
        patch.setattr(HeaderScan, "read", None)
        assert Source.open(path, model, Options()).view.rescale == first
        assert Source.glance(path, model).view.shape == values.shape
    tifffile.imwrite(path, 3 + values)
    os.utime(path, ns=(0, 1))
    assert Source.open(path, model, Options()).view.rescale.shift == pytest.approx([3 + first.shift[0]])


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".ome.zarr"])
@pytest.mark.parametrize("mode", ["tile-overlap", "sliding-window"])
def test_killed_and_started_again_it_gives_the_same_bytes(model_of, tif, tmp_path, suffix, mode):
    path, model = tif(), model_of(padding="same")
    options = Options(InferenceSettings(mode=mode, roi=[12]), batch=2, probabilities="float16")
    options = options if mode == "sliding-window" else Options(options.settings, (28,), 2, probabilities="float16")
    whole, torn = (tmp_path / name / f"a{suffix}" for name in ("whole", "torn"))
    job_of(path, model, options, whole).run()
    again = replace(options, batch=5)  # the plan comes from the journal
    for how in (options, again):
        kill(job_of(path, model, how, torn))
        assert not torn.exists()
    said = []
    result = job_of(path, model, again, torn).run(say=said.append)
    assert 0 < result.resumed_tiles == result.progress.before < result.progress.tiles
    assert any("going on as it was started" in line for line in said)
    assert files_of(torn.parent) == files_of(whole.parent)
    assert set(np.unique(voxels_of(torn))) == {0, CELL}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("scan", {}),
        ("model", {"seed": 1}),
        ("options", {"turns": "flips"}),
        ("options", {"probabilities": "uint8"}),
        ("options", {"settings": InferenceSettings(mode="whole")}),
    ],
)
def test_another_job_s_journal_is_refused_and_overwrite_discards_it(model_of, tif, tmp_path, what, change):
    path, model, options = tif(), model_of(), Options(window=(28,))
    kill(job_of(path, model, options))
    if what == "scan":
        tif(seed=1)
    elif what == "model":
        model = model_of(**change)
    else:
        options = Options(**{"window": (28,), **change})
    with pytest.raises(OutputError, match=rf"its {what} differs?; start it as before .*--overwrite"):
        job_of(path, model, options).run()
    over = replace(options, overwrite=True)
    job = job_of(path, model, over)
    job.run()
    clean = job_of(path, model, options, tmp_path / "clean" / "a.tif")
    clean.run()
    assert files_of(job.output.parent) == files_of(clean.output.parent)


def test_what_stands_is_not_replaced_unasked(model_of, tif):
    path, model = tif(), model_of()
    job_of(path, model).run()
    for options in (Options(), Options(probabilities="uint8")):
        with pytest.raises(OutputError, match="exists: give --overwrite"):
            job_of(path, model, options).run()
    kill(job_of(path, model, Options(overwrite=True, window=(28,))))
    assert (path.parent / "out" / "a.tif").exists()  # the mask that is to be replaced, until the next one is whole
    job_of(path, model, Options(overwrite=True, window=(28,))).run()
    assert list(files_of(path.parent / "out")) == ["a.tif"]


def limited(model, most, monkeypatch):
    """Has the network run out of memory where it is given more than ``most`` voxels at once."""
    forward = model.network.forward

    def narrow(x):
        if x.device.type != "meta" and x.numel() > most:
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")
        return forward(x)

    monkeypatch.setattr(model.network, "forward", narrow)


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
def test_out_of_memory_halves_the_batch_then_the_core(model_of, tif, tmp_path, monkeypatch, suffix):
    path, model = tif(shape=(70, 64)), model_of()
    output = tmp_path / "narrow" / f"a{suffix}"
    with monkeypatch.context() as patch:
        limited(model, 36 * 30, patch)
        said = []
        result = job_of(path, model, Options(window=(44,), batch=4), output).run(say=said.append)
    batches = [line.split("batch ")[1].split(",")[0] for line in said if "out of memory; beginning anew" in line]
    assert batches[:3] == ["2", "1", "1"]
    assert result.plan.batch == 1
    assert np.prod(result.plan.window) <= 36 * 30 < 2 * np.prod(result.plan.window)
    usual = job_of(path, model, Options(window=result.plan.window, batch=1), tmp_path / "usual" / f"a{suffix}")
    assert usual.run().plan.core == result.plan.core
    assert files_of(output.parent) == files_of(usual.output.parent)
    assert set(np.unique(voxels_of(output))) == {0, CELL}


def test_the_smaller_plan_is_kept_for_a_restart(model_of, tif, tmp_path, monkeypatch):
    path, model = tif(shape=(70, 64)), model_of()
    options = Options(window=(44,), batch=4)
    with monkeypatch.context() as patch:
        limited(model, 44 * 44, patch)
        kill(job_of(path, model, options))
    assert job_of(path, model, options).plan.batch == 1
    assert job_of(path, model, options).run().resumed_tiles > 0


def test_windows_that_do_not_fit_are_told_and_never_made_smaller(model_of, tif, monkeypatch):
    path, model = tif(), model_of(padding="same")
    limited(model, 20 * 20 - 1, monkeypatch)
    said = []
    options = Options(InferenceSettings(mode="sliding-window", roi=[20]), batch=2)
    with pytest.raises(TileError, match="out of memory with window 20 x 20, batch 1"):
        job_of(path, model, options).run(say=said.append)
    assert any("batch 1" in line for line in said)


def test_other_errors_are_not_taken_for_a_want_of_memory(model_of, tif, monkeypatch):
    path, model = tif(), model_of()
    job = job_of(path, model, Options(window=(28,)))
    assert job.plan.batch

    def broken(x):
        raise RuntimeError("a defect")

    monkeypatch.setattr(model.network, "forward", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        job.run()


def test_a_scan_that_changes_meanwhile_leaves_no_mask(model_of, tif):
    path, model = tif(), model_of()

    def touch(progress):
        os.utime(path, ns=(0, progress.done))

    job = job_of(path, model, Options(window=(28,)))
    with pytest.raises(ScanError, match="changed or vanished"):
        job.run(touch)
    assert not job.output.exists()
    with pytest.raises(OutputError, match="its scan differs"):
        job_of(path, model, Options(window=(28,))).run()


def test_a_scan_that_vanishes_meanwhile_and_comes_back_is_gone_on_with(model_of, tif, tmp_path):
    path, model = tif(), model_of()
    away = tmp_path / "away"

    def move(progress):
        if path.exists():
            path.rename(away)

    job = job_of(path, model, Options(window=(28,)))
    with pytest.raises(ScanError, match=r"a\.tif"):
        job.run(move)
    assert not job.output.exists()
    away.rename(path)
    assert job_of(path, model, Options(window=(28,))).run().resumed_tiles > 0
    clean = job_of(path, model, Options(window=(28,)), tmp_path / "clean" / "a.tif")
    clean.run()
    assert job.output.read_bytes() == clean.output.read_bytes()


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_kill_while_publishing_loses_and_repeats_nothing(model_of, tif, tmp_path, monkeypatch, suffix, closed):
    """After none, one or both of labels and probabilities have got their names, and before the journal is removed."""
    path, model = tif(), model_of()
    options = Options(window=(28,), probabilities="float16")
    clean = job_of(path, model, options, tmp_path / "clean" / f"a{suffix}")
    clean.run()

    def close(output):
        for sink in output.sinks[:closed]:
            sink.close()
        raise Killed

    output = tmp_path / "out" / f"a{suffix}"
    with monkeypatch.context() as patch:
        patch.setattr(Output, "close", close)
        with pytest.raises(Killed):
            job_of(path, model, options, output).run()
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "forward", None)
        result = job_of(path, model, options, output).run()
    assert result.resumed_tiles == result.progress.tiles == result.plan.tiles
    assert files_of(output.parent) == files_of(clean.output.parent)


def test_a_mask_that_another_run_left_is_no_published_one(model_of, tif, monkeypatch):
    """The journal says that all tiles are done, the mask is there, and yet it is the old one."""
    path, model = tif(), model_of()
    job_of(path, model).run()
    before = (path.parent / "out" / "a.tif").read_bytes()
    options = Options(window=(28,), overwrite=True, turns="flips")
    with monkeypatch.context() as patch:
        patch.setattr(Output, "close", lambda output: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            job_of(path, model, options).run()
    job_of(path, model, options).run()
    assert (path.parent / "out" / "a.tif").read_bytes() != before


@pytest.mark.parametrize("precision", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".ome.zarr", ".png"])
def test_probabilities_of_each_type_are_those_of_one_pass(model_of, tif, tmp_path, precision, suffix):
    path, model = tif(), model_of()
    output = tmp_path / "out" / f"a{suffix}"
    job_of(path, model, Options(window=(28,), probabilities=precision), output).run()
    wanted = in_memory(model.network, tifffile.imread(path)[None]).numpy()
    found = open_scan(probabilities_path(output))
    values = found.read(Box.of(found.shape)).reshape(wanted.shape).astype(np.float64)
    if precision == "uint8" and suffix != ".nii.gz":
        assert found.dtype == np.uint8
        values /= 255
    assert np.abs(values - wanted).max() < {"uint8": 0.502 / 255, "float16": 5e-4, "float32": 1e-5}[precision]


GRIDS = [None, (OBLIQUE, (1.2, 1.2, 1.5)), (FLIPPED, None)]


@pytest.mark.parametrize("grid", GRIDS, ids=["own", "resampled", "turned"])
@pytest.mark.parametrize("mode", ["tile-overlap", "sliding-window", "whole"])
def test_a_part_is_the_crop_of_the_whole_at_its_place(model_of, tif, nii, tmp_path, grid, mode):
    path, part = tif(), Box((9, 30), (33, 51))
    if grid is not None:
        path, part = nii(grid[0], shape=(26, 20, 18)), Box((2, 5, 3), (9, 12, 4))
    dims = part.ndim
    views = Preprocessing(spacing_mm=grid and grid[1], normalize=Normalization(kind="zscore"))
    model = model_of(dims, preprocessing=views, padding="same")
    options = {"settings": InferenceSettings(mode=mode, roi=[12]), "batch": 3, "probabilities": "float32"}
    options["window"] = (34,) if mode == "tile-overlap" else None
    whole = job_of(path, model, Options(**options), tmp_path / "whole.nii")
    whole.run()
    cut = job_of(path, model, Options(**options, part=part), tmp_path / "part.nii")
    result = cut.run()
    if mode != "whole":
        assert result.progress.tiles < result.plan.tiles
    assert result.voxels == part.voxels == result.progress.voxels
    own = Box.of(open_scan(path).shape)

    def crop(values):
        return values.reshape(-1, *own.shape)[(slice(None), *part.slices)]

    assert np.array_equal(voxels_of(cut.output), crop(voxels_of(whole.output)))
    shares = voxels_of(probabilities_path(cut.output)).reshape(2, *part.shape)
    assert np.abs(shares - crop(voxels_of(probabilities_path(whole.output)))).max() < 1e-6
    shift = np.eye(4)
    shift[:dims, 3] = part.start
    np.testing.assert_allclose(nib.load(cut.output).affine, nib.load(whole.output).affine @ shift, atol=1e-5)


def test_a_part_needs_no_voxel_beyond_its_tiles(model_of, tmp_path):
    path, part = tmp_path / "scan.zarr", Box((0, 0), (9, 12))
    zarr.create_array(str(path), data=noise(96, 96), chunks=(8, 8))
    chunk = path / "c" / "11" / "11"
    chunk.write_bytes(chunk.read_bytes()[:9])
    model, tiles = model_of(), Options(window=(28,))
    job_of(path, model, replace(tiles, part=part), tmp_path / "part.nii").run()
    with pytest.raises(ScanError):
        job_of(path, model, tiles, tmp_path / "whole.nii").run()


@pytest.mark.parametrize("part", [Box((0, 0), (61, 5)), Box((3, 3), (3, 9)), Box((0, 0, 0), (1, 1, 1))])
def test_a_part_that_is_none_is_refused(model_of, tif, part):
    with pytest.raises(GridError, match=r"shape \(60, 52\)"):
        job_of(tif(), model_of(), Options(part=part))


def test_a_result_is_ready_for_json(model_of, tif):
    result = job_of(tif(), model_of(), Options(window=(28,))).run()
    row = json.loads(json.dumps(result.to_dict()))
    assert row["tiles"] == row["plan"]["tiles"] == result.progress.done
    assert row["stages"]["read"]["bytes"] == row["tiles"] * 28 * 28 * 4
    assert row["stages"]["write"]["bytes"] == row["voxels"] == 60 * 52


def test_an_output_folder_that_cannot_be_is_told(model_of, tif):
    path = tif()
    with pytest.raises(OutputError, match=r"a\.tif"):
        job_of(path, model_of(), None, path / "out" / "a.tif").run()


def test_a_padded_network_s_halo_is_said(model_of, tif):
    said = []
    model = model_of(padding="same")
    result = job_of(tif(), model, Options(InferenceSettings(mode="tile-overlap"), (34,))).run(say=said.append)
    times = result.plan.tiles * 34 * 34 / (60 * 52)
    assert any(f"halo of this padded network costs {times:.1f} times" in line for line in said)


@pytest.mark.parametrize(
    "options",
    [
        Options(InferenceSettings(mode="tile-overlap"), (34,)),
        Options(InferenceSettings(mode="whole")),
        Options(InferenceSettings(roi=[20]), batch=2),
    ],
)
def test_a_way_that_does_not_fit_is_obeyed_and_said(model_of, tif, options):
    model, said = model_of(padding="same"), []
    job = job_of(tif(), model, replace(options, budget=Budget(1 << 20)))
    assert not job.run(say=said.append).plan.fits
    assert any("expected to need more memory than may be held" in line for line in said)


def test_a_full_disk_keeps_what_is_written(model_of, tif, monkeypatch):
    path, model, options = tif(), model_of(), Options(window=(28,))
    job, room = job_of(path, model, options), [40]

    def full(fd, data, offset):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        return real(fd, data, offset)

    real = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="make room and start again: what is written is kept"):
            job.run()
    result = job_of(path, model, options).run()
    assert 0 < result.resumed_tiles < result.plan.tiles
