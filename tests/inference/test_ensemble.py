"""An ensemble is the mean of its models, whatever the way through the scan."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_jobs import files_of, job_of, kill, noise, voxels_of

from medseg import Footprint, Tiling, build_network
from medseg.errors import PackageError, TileError
from medseg.geometry.footprint import Field
from medseg.inference.ensemble import Ensemble, Together, common_field, load_models
from medseg.inference.infer import probabilities_path
from medseg.inference.model import Model, Options
from medseg.inference.settings import InferenceSettings
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Normalization, Preprocessing

SLIDING = InferenceSettings(mode="sliding-window", roi=[24], overlap=0.25)
DATASETS = [
    Normalization(kind="dataset", rescale={"low": [low], "high": [3.0], "shift": [shift], "scale": [scale]})
    for low, shift, scale in ((-1.0, 0.2, 1.5), (-2.0, -0.4, 0.7))
]


def means(models, path, options, folder):
    """(K, \\*shape): the mean of what each model writes alone."""
    written = []
    for number, model in enumerate(models):
        job = job_of(path, model, options, folder / str(number) / path.name)
        job.run()
        written.append(voxels_of(probabilities_path(job.output)))
    return np.mean(written, axis=0, dtype=np.float64)


def check_mean(models, path, folder, options=None):
    """The law: probabilities are the mean of the models' own, and labels are theirs."""
    options = replace(options or Options(), probabilities="float32")
    job = job_of(path, Ensemble.of(models), options, folder / "together" / path.name)
    job.run()
    shares = voxels_of(probabilities_path(job.output))
    np.testing.assert_allclose(shares, means(models, path, options, folder), atol=2e-6)
    labels = voxels_of(job.output)[0]
    np.testing.assert_array_equal(labels == 7, shares[1] > shares[0])
    assert len(np.unique(labels)) == 2


@pytest.mark.parametrize(
    "networks",
    [
        ({}, {}),
        ({"depth": 1}, {"depth": 2}),
        ({"padding": "same", "depth": 2}, {"depth": 1}),
        ({"padding": "same"}, {"padding": "same", "depth": 2, "width": 2}, {"padding": "same"}),
    ],
    ids=["alike", "depths", "paddings", "three"],
)
def test_tiles_of_an_ensemble_are_the_mean_of_the_models_tiles(model_of, tif, tmp_path, networks):
    models = [model_of(seed=n, name=f"m{n}", **network) for n, network in enumerate(networks)]
    check_mean(models, tif(), tmp_path, Options(settings=InferenceSettings(mode="tile-overlap"), window=None))


@pytest.mark.parametrize("turns", [None, "rotations"])
def test_sliding_windows_of_an_ensemble_are_the_mean(model_of, tif, tmp_path, turns):
    models = [model_of(seed=n, name=f"m{n}", padding="same", depth=1 + n) for n in range(2)]
    check_mean(models, tif(), tmp_path, Options(settings=SLIDING, turns=turns))


@pytest.mark.parametrize("settings", [InferenceSettings(), SLIDING], ids=["tiles", "windows"])
def test_models_that_measured_their_own_intensities_see_their_own(model_of, tmp_path, settings):
    """A scan smaller than a window is set in zeros after the normalisation, so that the order of the two matters."""
    padding = "valid" if settings.mode == "auto" else "same"
    models = [
        model_of(seed=n, name=f"m{n}", padding=padding, preprocessing=Preprocessing(normalize=normalize))
        for n, normalize in enumerate(DATASETS)
    ]
    tifffile.imwrite(tmp_path / "a.tif", noise(20, 30))
    check_mean(models, tmp_path / "a.tif", tmp_path, Options(settings=settings))


def test_on_another_grid_in_3d(model_of, nii, tmp_path):
    preprocessing = Preprocessing(spacing_mm=[1.3, 1.1, 1.5], normalize=Normalization())
    models = [model_of(3, n, preprocessing, name=f"m{n}", depth=1) for n in range(2)]
    check_mean(models, nii(np.diag([-0.9, 1.4, 2.1, 1.0])), tmp_path)


def test_an_ensemble_of_a_model_with_itself_is_the_model(model_of, tif):
    model, path = model_of(), tif()
    options = Options(batch=2, window=(44,))
    alone = job_of(path, model, options)
    alone.run()
    both = load_models([model.folder, model.folder], model.device)
    twice = job_of(path, both, options, path.parent / "twice" / path.name)
    twice.run()
    np.testing.assert_array_equal(voxels_of(alone.output), voxels_of(twice.output))


def test_an_interrupted_ensemble_ends_with_the_same_bytes_and_belongs_to_its_models(model_of, tif):
    models, path = [model_of(seed=n, name=f"m{n}") for n in range(3)], tif()
    together = Ensemble.of(models[:2])
    options = Options(window=(28,), probabilities="float16")
    job_of(path, together, options, path.parent / "whole" / path.name).run()
    broken = job_of(path, together, options, path.parent / "broken" / path.name)
    kill(broken)
    for others in ([models[1], models[0]], [models[0], models[2]], models[:1]):
        other = job_of(path, load_models([m.folder for m in others], together.device), options, broken.output)
        assert other.parts["model"] != broken.parts["model"]
    job_of(path, together, options, broken.output).run()
    assert files_of(path.parent / "whole") == files_of(path.parent / "broken")


def sigmoid_model(folder, seed, classes):
    """A package of a network with a sigmoid channel for each of so many classes."""
    torch.manual_seed(seed)
    spec = {"name": "unet", "depth": 1, "width": 2, "in_channels": 1, "out_channels": classes}
    values = {"background": 0} | {f"c{n}": n for n in range(1, classes + 1)}
    card = ModelCard(
        medseg="0",
        network=spec,
        activation="sigmoid",
        labels={"values": values},
        preprocessing=Preprocessing(normalize=Normalization(kind="none")),
    )
    return Model.load(write_package(folder, build_network(spec).eval(), card), torch.device("cpu"))


def test_sigmoid_probabilities_are_averaged_channel_by_channel(tif, tmp_path):
    models, path = [sigmoid_model(tmp_path / f"m{n}", n, 2) for n in range(2)], tif()
    options = Options(probabilities="float32")
    job = job_of(path, Ensemble.of(models), options)
    job.run()
    shares = voxels_of(probabilities_path(job.output))
    assert shares.shape[0] == 2
    np.testing.assert_allclose(shares, means(models, path, options, tmp_path / "alone"), atol=2e-6)
    expected = np.where(shares.max(0) >= 0.5, shares.argmax(0) + 1, 0)
    np.testing.assert_array_equal(voxels_of(job.output)[0], expected)


def test_models_of_other_tasks_are_refused_by_what_differs(model_of, tmp_path):
    first = model_of()
    spaced = model_of(
        name="spaced", preprocessing=Preprocessing(spacing_mm=[1, 1], normalize=Normalization(kind="none"))
    )
    scaled = model_of(name="scaled", preprocessing=Preprocessing())
    others = {
        "labels": sigmoid_model(tmp_path / "three", 0, 3),
        "axes": model_of(3, name="deep"),
        "spacings": spaced,
        "kinds of normalization": scaled,
    }
    for what, other in others.items():
        with pytest.raises(PackageError, match=f"their {what} differ") as refused:
            Ensemble.of([first, other])
        assert str(first.folder) in str(refused.value)
        assert str(other.folder) in str(refused.value)


def test_what_the_models_say_of_themselves_is_kept_where_they_agree(model_of):
    one = model_of(name="one", padding="same", inference=SLIDING, window=[24, 24])
    same = model_of(name="same", seed=1, padding="same", inference=SLIDING, window=[24, 24])
    card = Ensemble.of([one, same]).card
    assert card.inference == SLIDING
    assert card.window == [24, 24]
    deeper = model_of(name="deeper", seed=1, padding="same", depth=3, inference=SLIDING, window=[36, 36])
    assert Ensemble.of([one, deeper]).card.window == [24, 24]
    assert Ensemble.of([one, model_of(name="valid", window=[28, 28])]).card.inference == InferenceSettings()


FIELDS = st.builds(
    lambda halo, step, offset, valid: (
        Field(trim=2 * halo, last=2 * halo, step=step, offset=offset % step)
        if valid
        else Field(first=-halo, last=halo, step=step, offset=offset % step, padded=True)
    ),
    st.integers(0, 20),
    st.sampled_from([1, 2, 4, 6, 8]),
    st.integers(0, 7),
    st.booleans(),
)


@given(st.lists(FIELDS, min_size=1, max_size=4), st.integers(1, 90), st.integers(1, 40), st.integers(0, 1))
def test_every_network_s_own_window_lies_within_the_common_one(fields, extent, core, spare):
    """And begins at the network's own phase: a halo before a multiple of its step."""
    common = Footprint.of([common_field(fields)])
    assert all(common.step[0] % field.step == 0 for field in fields)
    tiling = Tiling([extent], [core], common, spare)
    answered = common.core_shape(tiling.window)
    for field in fields:
        own = Footprint.of([field])
        before = common.halo[0] - own.halo[0]
        assert before >= 0
        assert before + own.input_shape(answered)[0] <= tiling.window[0]
        assert all((tile.read.start[0] + before + own.halo[0]) % field.step == 0 for tile in tiling)


def test_a_common_field_of_equal_ones_is_theirs():
    field = Field(trim=184, last=184, step=16, offset=12)
    assert common_field([field, field]) == field


def test_together_forward_and_core_are_the_networks_own():
    torch.manual_seed(0)
    specs = [{"depth": 1}, {"depth": 2}, {"depth": 1, "padding": "same"}, {"depth": 2, "padding": "same"}]
    networks = [build_network({"name": "unet", "width": 2, "in_channels": 1, "out_channels": 2, **s}) for s in specs]
    for pair in combinations([network.eval() for network in networks], 2):
        together = Together(pair).eval()
        window = together.footprint.input_shape((8, 8))
        x = torch.randn(2, 1, *window)
        core = together.footprint.core_shape(window)
        with torch.inference_mode():
            found = together.core(x)
            assert together(x).shape[1] == 4
            for network, own in zip(pair, found.chunk(2, 1), strict=True):
                margin = together.footprint.halo[0] - network.footprint.halo[0]
                size = network.footprint.input_shape(core)[0]
                seen = x[..., margin : margin + size, margin : margin + size]
                expected = network.core(seen)[..., : core[0], : core[1]]
                torch.testing.assert_close(own, expected)
        with pytest.raises(TileError):
            together.check_window((1, 1))
