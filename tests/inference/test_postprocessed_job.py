"""What is done to a mask after the network, within a job: the same bytes whenever it is killed."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.measure import label
from small_jobs import CELL, Killed, files_of, job_of, kill, voxels_of

from medseg import Box
from medseg.errors import ConfigError, OutputError
from medseg.inference import infer
from medseg.inference.infer import Job, probabilities_path
from medseg.inference.model import Model, Options
from medseg.inference.settings import InferenceSettings
from medseg.package import read_card, write_package
from medseg.postprocessing.settings import parse_steps

SMALL = {"name": "remove_small", "min_voxels": 6}
STEPS = parse_steps([SMALL, {"name": "keep_largest", "count": 3}], "")
NUMBERS = parse_steps([SMALL, {"name": "instances"}], "")


def with_steps(model, *steps):
    """The model, its package carrying steps."""
    card = read_card(model.folder).model_copy(update={"postprocessing": list(steps)})
    write_package(model.folder, model.network, card)
    return Model.load(model.folder, model.device)


def without_small(mask):
    numbers = label(mask == CELL)
    return np.where(np.isin(numbers, np.flatnonzero(np.bincount(numbers.ravel()) >= 6)) & (mask == CELL), CELL, 0)


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".ome.zarr"])
def test_the_package_s_steps_are_done_and_none_switches_them_off(model_of, tif, tmp_path, suffix):
    path, model = tif(), model_of()
    model = with_steps(model, *parse_steps([SMALL], ""))
    raw, done = (tmp_path / name / f"a{suffix}" for name in ("raw", "done"))
    job_of(path, model, Options(window=(28,), postprocessing=()), raw).run()
    result = job_of(path, model, Options(window=(28,)), done).run()
    wanted = without_small(voxels_of(raw)[0])
    assert 0 < (wanted == CELL).sum() < (voxels_of(raw)[0] == CELL).sum()
    np.testing.assert_array_equal(voxels_of(done)[0], wanted)
    assert result.to_dict()["postprocessing"][0]["changed_voxels"] == (wanted != voxels_of(raw)[0]).sum()
    assert [p.name for p in done.parent.iterdir()] == [done.name]


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".ome.zarr"])
@pytest.mark.parametrize("mode", ["tile-overlap", "sliding-window"])
def test_killed_among_tiles_it_gives_the_same_bytes(model_of, tif, tmp_path, suffix, mode):
    path, model = tif(), model_of(padding="same")
    options = Options(
        InferenceSettings(mode=mode, roi=[12]),
        window=(28,) if mode == "tile-overlap" else None,
        batch=2,
        probabilities="float16",
        postprocessing=NUMBERS,
    )
    whole, torn = (tmp_path / name / f"a{suffix}" for name in ("whole", "torn"))
    job_of(path, model, options, whole).run()
    kill(job_of(path, model, options, torn), after=3)
    assert not torn.exists()
    assert job_of(path, model, options, torn).run().resumed_tiles > 0
    assert files_of(torn.parent) == files_of(whole.parent)
    assert voxels_of(torn).dtype == np.uint32


def killed_at(moment, monkeypatch):
    """Has the job die before, while and after the processed mask is written, published, and the raw one removed."""
    run, sink_of, remove = infer.run_chain, Job._final_sink, infer.remove

    def die(*arguments, **more):
        raise Killed

    def half(source, sink, chain, like):
        box = Box((0,) * len(like.shape), (7,) * len(like.shape))
        sink.write(box, np.ones(box.shape, sink.request.dtype))
        raise Killed

    def unpublished(job):
        sink = sink_of(job)
        monkeypatch.setattr(sink, "close", die)
        return sink

    def keeping(path):
        if ".raw." in path.name and path.exists():
            raise Killed
        remove(path)

    def removing(path):
        gone = ".raw." in path.name and path.exists()
        remove(path)
        if gone:
            raise Killed

    target, name, value = {
        "before it begins": (infer, "run_chain", die),
        "half way": (infer, "run_chain", half),
        "before it is published": (Job, "_final_sink", unpublished),
        "before the raw mask goes": (infer, "remove", keeping),
        "after it is gone": (infer, "remove", removing),
    }[moment]
    assert run is infer.run_chain
    monkeypatch.setattr(target, name, value)


@pytest.mark.parametrize("suffix", [".tif", ".ome.zarr"])
@pytest.mark.parametrize(
    "moment",
    ["before it begins", "half way", "before it is published", "before the raw mask goes", "after it is gone"],
)
def test_killed_while_processing_it_goes_on_without_the_network(model_of, tif, tmp_path, monkeypatch, suffix, moment):
    path, model = tif(), model_of()
    options = Options(window=(28,), probabilities="float16", postprocessing=STEPS)
    clean = job_of(path, model, options, tmp_path / "clean" / f"a{suffix}")
    clean.run()
    output = tmp_path / "out" / f"a{suffix}"
    with monkeypatch.context() as patch:
        killed_at(moment, patch)
        with pytest.raises(Killed):
            job_of(path, model, options, output).run()
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "forward", None)
        result = job_of(path, model, options, output).run()
    assert result.resumed_tiles == result.plan.tiles
    assert files_of(output.parent) == files_of(clean.output.parent)


def test_a_mask_that_is_replaced_stands_until_the_processed_one_does(model_of, tif, monkeypatch):
    path, model = tif(), model_of()
    output = path.parent / "out" / "a.tif"
    job_of(path, model, Options(window=(28,)), output).run()
    before = output.read_bytes()
    options = Options(window=(28,), overwrite=True, postprocessing=STEPS)
    with monkeypatch.context() as patch:
        killed_at("half way", patch)
        with pytest.raises(Killed):
            job_of(path, model, options, output).run()
    assert output.read_bytes() == before
    job_of(path, model, options, output).run()
    assert output.read_bytes() != before


def test_other_steps_are_another_job_and_overwrite_leaves_nothing_of_the_first(model_of, tif, tmp_path, monkeypatch):
    path, model = tif(), model_of()
    options = Options(window=(28,), postprocessing=STEPS)
    with monkeypatch.context() as patch:
        killed_at("half way", patch)
        with pytest.raises(Killed):
            job_of(path, model, options).run()
    other = replace(options, postprocessing=())
    with pytest.raises(OutputError, match="its options differ"):
        job_of(path, model, other).run()
    job = job_of(path, model, replace(other, overwrite=True))
    job.run()
    clean = job_of(path, model, other, tmp_path / "clean" / "a.tif")
    clean.run()
    assert files_of(job.output.parent) == files_of(clean.output.parent)


def test_a_part_is_left_as_the_network_made_it_unless_steps_are_asked_for(model_of, tif, tmp_path):
    path = tif()
    model = with_steps(model_of(), *STEPS)
    part = Box((5, 8), (40, 44))
    whole = job_of(path, model, Options(window=(28,), postprocessing=()), tmp_path / "whole.tif")
    cut = job_of(path, model, Options(window=(28,), part=part), tmp_path / "cut.tif")
    asked = job_of(path, model, Options(window=(28,), part=part, postprocessing=NUMBERS), tmp_path / "asked.tif")
    for job in (whole, cut, asked):
        job.run()
    crop = voxels_of(whole.output)[0][part.slices]
    np.testing.assert_array_equal(voxels_of(cut.output)[0], crop)
    np.testing.assert_array_equal(voxels_of(asked.output)[0], label(without_small(crop)))


def test_probabilities_stay_the_network_s(model_of, tif, tmp_path):
    path, model = tif(), model_of()
    options = Options(window=(28,), probabilities="float32")
    outputs = [tmp_path / name / "a.tif" for name in ("raw", "done")]
    for output, steps in zip(outputs, ((), STEPS), strict=True):
        job_of(path, model, replace(options, postprocessing=steps), output).run()
    raw, done = (probabilities_path(output).read_bytes() for output in outputs)
    assert raw == done


def test_what_a_format_cannot_hold_or_a_scan_does_not_suit_is_told_before_the_network_runs(model_of, tif, monkeypatch):
    path, model = tif(), model_of()
    job = job_of(path, model, Options(window=(28,), postprocessing=NUMBERS), path.parent / "out" / "a.png")
    assert job.plan.tiles > 1
    monkeypatch.setattr(model.network, "forward", None)
    with pytest.raises(OutputError, match=r"a PNG holds uint8 or uint16.*use \.tif"):
        job.run()
    assert not list(job.output.parent.glob(".*"))
    sized = parse_steps([{"name": "remove_small", "min_mm2": 5}], "")
    with pytest.raises(ConfigError, match="size in voxels"):
        job_of(path, model, Options(postprocessing=sized))
