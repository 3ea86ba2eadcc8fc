import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from medseg import Box, build_network, open_scan
from medseg.datasets.labels import IGNORED, Labels
from medseg.training.augment import build_augmentation
from medseg.training.census import CaseCensus
from medseg.training.losses import build_loss
from medseg.training.samples import ConsecutiveSamples, SampleGeometry, TileSamples, TrainingCase

LABELS = Labels({"cell": 0, "membrane": 255}, ("membrane",))
SPATIAL = [{"name": "flip"}, {"name": "rotate90"}, {"name": "elastic", "sigma": 3, "probability": 1.0}]


def case(shape, seed=0, share=0.2):
    """A case whose image is its own label: 1 on membranes."""
    mask = np.random.default_rng(seed).random(shape) < share
    image, label = mask.astype(np.float32)[None], (mask * 255).astype(np.uint8)[None]
    return TrainingCase(f"case{seed}", open_scan(image), open_scan(label))


def samples(shapes, augmentation=(), padding="valid", window=28, seed=0, foreground=0.33, share=0.2, loss=None):
    net = build_network({"name": "unet", "width": 2, "depth": 1, "padding": padding})
    geometry = SampleGeometry.of(net, (window, window))
    cases = [case(shape, i, share) for i, shape in enumerate(shapes)]
    loss = None if loss is None else build_loss({"name": loss})
    return TileSamples(cases, LABELS, geometry, build_augmentation(augmentation, 2), seed, foreground, loss)


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    number=st.integers(0, 50),
    augmentation=st.sampled_from([[], SPATIAL[:2]]),
    padding=st.sampled_from(["valid", "same"]),
)
def test_the_label_is_the_middle_of_the_image(shape, number, augmentation, padding):
    """The valid-convolution crop is which box is read; scans may be smaller than the core."""
    drawn = samples([shape], augmentation, padding)
    sample = drawn[number]
    window, core = drawn.geometry.window, drawn.geometry.core
    assert core == ((12, 12) if padding == "valid" else window)
    assert sample["image"].shape == (1, *window)
    cut = [(n - c) // 2 for n, c in zip(window, core, strict=True)]
    middle = sample["image"][0, cut[0] : cut[0] + core[0], cut[1] : cut[1] + core[1]]
    assert torch.equal(middle.long(), sample["label"])


@settings(max_examples=10)
@given(numbers=st.lists(st.integers(0, 200), min_size=1, max_size=4), seed=st.integers(0, 5))
def test_a_sample_is_a_function_of_seed_and_number(numbers, seed):
    first = samples([(40, 40), (50, 30)], SPATIAL, seed=seed)
    for n in numbers:
        first[n]
    again = samples([(40, 40), (50, 30)], SPATIAL, seed=seed)
    for n in reversed(numbers):
        for key in ("image", "label"):
            assert torch.equal(first[n][key], again[n][key])


def test_workers_change_nothing():
    drawn = samples([(40, 40), (50, 30)], SPATIAL)

    def some(workers):
        loader = DataLoader(drawn, batch_size=2, sampler=ConsecutiveSamples(2, 3), num_workers=workers)
        batches = iter(loader)
        return [next(batches)["image"] for _ in range(4)]

    for alone, together in zip(some(0), some(2), strict=True):
        assert torch.equal(alone, together)


def test_samples_go_on_from_a_step():
    start = iter(ConsecutiveSamples(3))
    first = [next(start) for _ in range(9)]
    resumed = iter(ConsecutiveSamples(3, 2))
    assert [next(resumed) for _ in range(3)] == first[6:]


def test_every_epoch_visits_every_case_once():
    drawn = samples([(30, 30)] * 5)
    drawn.cases = [TrainingCase(str(i), c.image, c.label) for i, c in enumerate(drawn.cases)]
    seen = []
    drawn._core_box = lambda which, rng: seen.append(which) or TileSamples._core_box(drawn, which, rng)
    for number in range(15):
        drawn[number]
    assert all(sorted(seen[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:]


def test_foreground_is_oversampled():
    sparse = samples([(200, 200)], foreground=1.0, share=0.0005)
    assert all((sparse[n]["label"] > 0).any() for n in range(20))
    never = samples([(200, 200)], foreground=0.0, share=0.0005)
    assert not all((never[n]["label"] > 0).any() for n in range(20))


def test_a_case_without_foreground_is_sampled_all_the_same():
    empty = samples([(40, 40)], foreground=1.0, share=0.0)
    assert not (empty[0]["label"] > 0).any()


def test_remembered_voxels_are_foreground():
    one = case((60, 60), seed=4, share=0.01)
    found = CaseCensus.of(one.label, LABELS)
    (voxels,), values = found.foreground, one.label.read(Box.of(one.label.shape))
    assert (values[0][tuple(voxels.T)] == 255).all()
    assert len(voxels) == (values == 255).sum() == found.counts[1]
    assert found.counts.sum() == 60 * 60
    assert not len(found.labelled), "where nothing is ignored, samples lie anywhere"


def sparse(foreground):
    """Samples of a large scan of which one corner is annotated, with a little foreground there."""
    label = np.full((1, 200, 300), 7, np.uint8)
    label[0, 150:170, 250:290] = 0
    label[0, 160, 250:260] = 255
    labels = Labels({"cell": 0, "membrane": 255, "ignore": 7}, ("membrane",))
    one = TrainingCase("sparse", open_scan(label.astype(np.float32)), open_scan(label))
    net = build_network({"name": "unet", "width": 2, "depth": 1})
    geometry, augmentation = SampleGeometry.of(net, (28, 28)), build_augmentation(SPATIAL, 2)
    return TileSamples([one], labels, geometry, augmentation, 0, foreground)


def test_samples_lie_where_something_is_annotated_and_foreground_is_never_what_is_ignored():
    found = sparse(0.5).census[0]
    np.testing.assert_array_equal(found.counts, [790, 10])
    assert sum(map(len, found.foreground)) == 10
    for drawn in (sparse(0.0), sparse(1.0)):
        seen = torch.stack([drawn[n]["label"] for n in range(20)])
        assert set(seen.unique().tolist()) <= {IGNORED, 0, 1}
        assert (seen >= 0).flatten(1).any(1).all()
        assert (seen == IGNORED).any()
    never = sparse(0.5)
    never.cases = [TrainingCase("none", never.cases[0].image, open_scan(np.full((1, 50, 50), 7, np.uint8)))]
    assert (never[0]["label"] == IGNORED).all()


def test_maps_come_where_the_loss_takes_them():
    weighted = samples([(40, 40)], loss="weighted_ce")[0]
    assert weighted["maps"].shape == weighted["label"].shape
    assert weighted["maps"].min() > 0
    distances = samples([(40, 40)], loss="boundary")[0]
    assert distances["maps"].shape == (1, *distances["label"].shape)
    assert torch.equal(distances["maps"][0] <= 0, distances["label"] == 1)
    for loss in (None, "dice_ce"):
        assert samples([(40, 40)], loss=loss)[0]["maps"].numel() == 0


def test_a_window_that_the_network_cannot_take_is_refused():
    from medseg import MedsegError

    with pytest.raises(MedsegError, match="tile 27"):
        samples([(40, 40)], window=27)
