import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from medseg import build_network, open_scan
from medseg.datasets.labels import Labels
from medseg.training.augment import build_augmentation
from medseg.training.samples import ConsecutiveSamples, SampleGeometry, TileSamples, TrainingCase, foreground_of

LABELS = Labels({"cell": 0, "membrane": 255}, ("membrane",))
SPATIAL = [{"name": "flip"}, {"name": "rotate90"}, {"name": "elastic", "sigma": 3, "probability": 1.0}]


def case(shape, seed=0, share=0.2):
    """A case whose image is its own label: 1 on membranes."""
    mask = np.random.default_rng(seed).random(shape) < share
    image, label = mask.astype(np.float32)[None], (mask * 255).astype(np.uint8)[None]
    return TrainingCase(f"case{seed}", open_scan(image), open_scan(label))


def samples(shapes, augmentation=(), padding="valid", window=28, seed=0, foreground=0.33, share=0.2, weighted=False):
    net = build_network({"name": "unet", "width": 2, "depth": 1, "padding": padding})
    geometry = SampleGeometry.of(net, (window, window))
    cases = [case(shape, i, share) for i, shape in enumerate(shapes)]
    return TileSamples(cases, LABELS, geometry, build_augmentation(augmentation, 2), seed, foreground, weighted)


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
    (voxels,) = foreground_of(one, LABELS, np.random.default_rng(0))
    values = one.label.array if hasattr(one.label, "array") else one.label._array
    assert (values[0][tuple(voxels.T)] == 255).all()
    assert len(voxels) == (values == 255).sum()


def test_weights_come_where_the_loss_takes_them():
    weighted = samples([(40, 40)], weighted=True)[0]
    assert weighted["weight"].shape == weighted["label"].shape
    assert weighted["weight"].min() > 0
    assert samples([(40, 40)])[0]["weight"].numel() == 0


def test_a_window_that_the_network_cannot_take_is_refused():
    from medseg import MedsegError

    with pytest.raises(MedsegError, match="tile 27"):
        samples([(40, 40)], window=27)
