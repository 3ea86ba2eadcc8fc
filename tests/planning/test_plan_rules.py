"""The rules of a plan, each by itself."""

import math

import numpy as np
import plan_sets
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medseg.datasets.cases import Case
from medseg.datasets.checks.facts import Values
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, MedsegError
from medseg.networks import NETWORKS
from medseg.planning import measure, network
from medseg.planning.choice import Choice, Item, to_yaml
from medseg.planning.learning import augmentation, loss
from medseg.planning.levels import LEAST_MAP, levels_of
from medseg.planning.machine import LIBRARIES_BYTES, Means
from medseg.planning.network import Task, on_meta, prefers_valid, size_network
from medseg.planning.preprocess import coarse_axis, target_spacing
from medseg.planning.values import labels_found
from medseg.training.step_cost import StepCount

PLAIN = st.one_of(st.integers(-9, 9), st.booleans(), st.none(), st.sampled_from(["RAS", "a b", "no", "x: y", "# z"]))
VALUES = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=40), st.dictionaries(st.sampled_from("abc"), st.lists(PLAIN, max_size=9))
)
WORDS = st.text("abc xyz", min_size=1, max_size=300).filter(str.strip)


@given(
    st.lists(st.tuples(VALUES, WORDS), min_size=1, max_size=5),
    st.lists(st.tuples(PLAIN, WORDS), min_size=1, max_size=4),
)
def test_choices_become_yaml_that_says_them(pairs, items):
    choices = [Choice(f"section.k{i}", value, why) for i, (value, why) in enumerate(pairs)]
    choices.append(Choice("listed", [Item(value, why) for value, why in items], "why"))
    read = yaml.safe_load(to_yaml(["head"], choices))
    assert read["section"] == {f"k{i}": value for i, (value, _) in enumerate(pairs)}
    assert read["listed"] == [value for value, _ in items]


@pytest.mark.parametrize(
    ("shape", "spacing", "halvings"),
    [
        ((40, 56, 40), (1, 1, 1), (3, 3, 3)),  # nnU-Net's own: Hippocampus
        ((20, 320, 256), (3.6, 0.625, 0.625), (2, 6, 6)),  # Prostate
        ((128, 128, 128), (1, 1, 1), (5, 5, 5)),  # Brain tumour
        ((512, 512), (1, 1), (7, 7)),
    ],
)
def test_levels_are_those_of_published_plans(shape, spacing, halvings):
    strides, _ = levels_of(shape, spacing)
    assert tuple(sum(stride[axis] == 2 for stride in strides) for axis in range(len(shape))) == halvings


@given(st.lists(st.integers(16, 300), min_size=3, max_size=3), st.lists(st.floats(0.3, 6), min_size=3, max_size=3))
def test_levels_keep_room_and_leave_coarse_axes_for_later(shape, spacing):
    strides, kernels = levels_of(shape, spacing)
    assert len(kernels) == len(strides) + 1
    assert kernels[-1] == [3, 3, 3]
    size, voxel = np.array(shape), np.array(spacing)
    for stride, kernel in zip(strides, kernels, strict=False):
        for axis in range(3):
            if stride[axis] == 2:
                assert size[axis] >= 2 * LEAST_MAP
            if kernel[axis] == 1:
                assert voxel[axis] >= 2 * voxel.min()
        size, voxel = -(-size // stride), voxel * stride


@given(st.permutations([0, 1, 2]), st.floats(0.4, 1.2), st.floats(4, 9))
def test_the_target_spacing_turns_with_the_axes(order, fine, ratio):
    rng = np.random.default_rng(0)
    spacings = np.stack([np.full(20, fine), np.full(20, fine), fine * ratio * rng.uniform(1, 2, 20)], 1)
    shapes = np.tile([400, 400, 12], (20, 1))
    found, coarse = target_spacing(spacings[:, order], shapes[:, order])
    assert order[coarse] == 2
    assert found[coarse] == pytest.approx(np.percentile(spacings[:, 2], 10), rel=1e-3)
    assert found[coarse] < np.median(spacings[:, 2])
    assert [found[a] for a in range(3) if a != coarse] == pytest.approx([fine, fine], rel=1e-3)


def test_an_axis_is_coarse_by_spacing_and_number_of_voxels():
    assert coarse_axis([1, 1, 5], [200, 200, 20]) == 2
    assert coarse_axis([1, 1, 5], [200, 200, 100]) is None
    assert coarse_axis([1, 1, 2], [200, 200, 20]) is None


def write(folder, image, label):
    nib = plan_sets.nib
    paths = []
    for name, array in (("image", image), ("label", label)):
        path = folder / f"{name}.nii"
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 1.0, 1.0])), path)
        paths.append(path)
    return Case("case", paths[0], paths[1], "case")


def test_a_case_is_measured_as_the_whole_array_says(tmp_path):
    label = np.zeros((20, 18, 16), np.uint8)
    label[2:10, 3:9, 4:10] = 1
    label[12:18, 10:14, 2:12] = 1
    label[4:6, 12:16, 11:15] = 2
    image = np.random.default_rng(0).normal(50, 9, label.shape).astype(np.float32)
    labels = Labels({"background": 0, "a": 1, "b": 2, "none": 3})
    found = measure.measure_case(write(tmp_path, image, label), labels, "RAS")
    assert found.shape == label.shape
    assert [own.voxels for own in found.classes] == [int((label == k).sum()) for k in (1, 2, 3)]
    assert [own.objects for own in found.classes] == [ndimage.label(label == k)[1] for k in (1, 2, 3)]
    assert set(found.classes[0].extents_mm) == {(8.0, 12.0, 6.0), (6.0, 8.0, 10.0)}
    assert found.classes[0].thickness_mm == pytest.approx(6, abs=1)
    assert np.isin(found.intensities, image[label > 0]).all()
    assert found.intensities.shape == (1, (label > 0).sum())
    assert found.foreground == (label > 0).mean()


def test_a_large_case_is_thinned_out_and_still_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "MAP_VOXELS", 4000)
    monkeypatch.setattr(measure, "KEPT", 100)
    label = np.zeros((40, 40, 40), np.uint8)
    label[8:32, 8:24, 8:20] = 1
    case = write(tmp_path, label.astype(np.float32), label)
    found = measure.measure_case(case, Labels({"background": 0, "a": 1}), None).classes[0]
    assert found.voxels == label.sum()
    step = math.ceil((label.size / 4000) ** (1 / 3))
    assert np.abs(np.array(found.extents_mm[0]) - (24, 32, 12)).max() <= 2 * 2 * step
    assert measure.measure_case(case, Labels({"background": 0, "a": 1}), None).intensities.shape == (1, 100)


def test_objects_that_are_numbered_are_told_apart(tmp_path):
    label = np.zeros((16, 16, 8), np.uint8)
    label[2:6, 2:6, 2:6], label[6:10, 2:6, 2:6] = 1, 2
    case = write(tmp_path, label.astype(np.float32), label)
    numbered = measure.measure_case(case, Labels({"background": 0, "cell": 1}, instances=True), None)
    assert numbered.classes[0].objects == 2
    assert set(numbered.classes[0].extents_mm) == {(4.0, 8.0, 4.0)}


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (("left kidney", "liver"), {0}),
        (("kidney_R",), {0}),
        (("LungLeft",), {0}),
        (("upper_lobe",), {2}),
        (("anterior", "posterior"), {1}),
        (("cleft", "liver", "label_1"), set()),
    ],
)
def test_names_that_tell_sides_apart(names, sided):
    found = set(plan_sets.evidence(names=names).sided)
    assert found == sided or names[0] == "cleft"


def test_sided_labels_are_never_mirrored():
    names = [
        item.value["name"] for item in augmentation(plan_sets.evidence(names=("left ear",)), None, (8, 8, 8)).value
    ]
    assert "flip" not in names
    flat = plan_sets.evidence((64, 64), (1, 1), names=("left lung",), sides=(8.0,))
    assert not {"flip", "rotate90"} & {item.value["name"] for item in augmentation(flat, None, (64, 64)).value}


def test_the_loss_follows_from_the_classes():
    assert loss(plan_sets.evidence(), True).value == {"name": "dice_bce", "batch": False}
    assert loss(plan_sets.evidence(names=("a", "b")), False).value == {"name": "dice_ce", "batch": True}


def means(memory=4 << 30, minutes=20, rate=1e11):
    return Means(memory, minutes, rate, False, LIBRARIES_BYTES, "a machine")


SMALL = Task((35, 50, 36), (1.0, 1.0, 1.0), 1, 3, 8.0)


@settings(max_examples=4)
@given(
    st.lists(st.integers(12, 90), min_size=3, max_size=3),
    st.sampled_from([1.25, 1.5, 3]),
    st.sampled_from([1, 60]),
    st.sampled_from(["dynunet", "unet", None]),
)
def test_what_is_planned_fits_and_can_be_taken(shape, gibibytes, minutes, name):
    task = Task(tuple(shape), (1.0, 1.0, 2.5), 1, 2, 5.0)
    sized = size_network(task, means(int(gibibytes * 2**30), minutes), name)
    assert sized.fits
    on_meta(sized.spec).check_window(sized.window)
    assert all(core >= 1 for core in sized.core)


def test_more_time_is_never_less_network():
    found = [size_network(SMALL, means(minutes=m)) for m in (2, 20, 2000)]
    work = [sized.cost.flops for sized in found]
    assert work == sorted(work)
    assert work[0] < work[-1]


def test_memory_that_nothing_fits_is_told_with_what_would_do():
    with pytest.raises(ConfigError, match=r"batch of 1, needs \S+iB"):
        size_network(SMALL, means(memory=LIBRARIES_BYTES + (1 << 20)))
    with pytest.raises(ConfigError, match="did you mean 'dynunet'"):
        size_network(SMALL, means(), "dynnet")


def test_valid_convolutions_want_scans_that_are_large_against_their_halo():
    large = Task((512, 512), (1.0, 1.0), 1, 1, 10.0)
    assert prefers_valid(large)
    assert size_network(large, means()).spec["name"] == "unet"
    assert not prefers_valid(Task((256, 256), (1.0, 1.0), 1, 1, 10.0))
    assert not prefers_valid(Task((512, 512), (1.0, 1.0), 1, 1, 300.0))


def test_values_that_nobody_named():
    keys, _ = labels_found([Values({0: 9, 255: 1}, 2)])
    assert keys == {"labels": {"background": 0, "label_255": 255}}
    numbered = [Values(dict.fromkeys(range(n), 5), n) for n in (7, 9, 20, 4)]
    assert labels_found(numbered)[0]["instances"]
    assert "instances" not in labels_found([Values(dict.fromkeys(range(6), 5), 6)] * 4)[0]
    for wrong in (
        [Values({0: 3}, 1)],
        [Values({0: 3, 1: 2}, 2, 5, "0.5")],
        [Values({7 * n: 1 for n in range(90)}, 90)] * 2,
    ):
        with pytest.raises(MedsegError):
            labels_found(wrong)


@pytest.mark.parametrize("shape", [(40, 33), (24, 20, 16)])
def test_every_network_is_given_a_window_that_it_can_be_trained_on(monkeypatch, shape):
    monkeypatch.setattr(network, "count_step", lambda *_, **__: StepCount(1, 1.0))
    monkeypatch.setattr(network, "MOST_BATCH", network.BATCH)
    for name in NETWORKS:
        sized = size_network(Task(shape, (1.0,) * len(shape), 1, 2, 5.0), means(64 << 30), name)
        on_meta(sized.spec).check_window(sized.window)
        assert all(n >= core >= least for n, core, least in zip(sized.window, sized.core, shape, strict=True)), name


def test_a_network_of_one_size_is_built_for_its_window():
    spec = size_network(Task((30, 50), (1.0, 1.0), 1, 2, 5.0), means(rate=1e9, minutes=1), "unetr").spec
    assert spec["image_size"] in (32, 48, 64)
    small = size_network(Task((20, 16, 9), (1.0, 1.0, 1.0), 1, 2, 5.0), means(), "unetr")
    assert (small.spec["image_size"], small.window) == (32, (32, 32, 32))
