"""Whole plans of tiny data sets: each is a config that loads, with a reason for every number."""

import numpy as np
import plan_sets
import pytest
import yaml

from medseg.errors import MedsegError
from medseg.experiment import Data, Experiment
from medseg.networks import build_network
from medseg.planning.plan import Request, make_plan
from medseg.training.augment import build_augmentation
from medseg.training.losses import build_loss


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Kind → the plan's text, its path, and the data set."""
    found = {}

    def of(kind):
        if kind not in found:
            root = plan_sets.KINDS[kind](tmp_path_factory.mktemp(kind) / "set")
            text = make_plan(Request(Data(root=root), "tiny", memory=8 << 30, minutes=1)).text
            path = root.parent / "tiny.yaml"
            path.write_text(text)
            found[kind] = (text, path, root)
        return found[kind]

    return of


@pytest.mark.parametrize("kind", plan_sets.KINDS)
def test_a_plan_is_a_config_that_builds_what_it_names(planned, kind):
    _, path, _ = planned(kind)
    experiment = Experiment.load(path)
    assert experiment.to_yaml() == Experiment.model_validate(yaml.safe_load(experiment.to_yaml())).to_yaml()
    network = build_network(
        {**experiment.network.arguments, "in_channels": 3 if kind == "rgb" else 1, "out_channels": 2}
    )
    network.check_window(experiment.training.window)
    build_loss(experiment.loss.model_dump())
    build_augmentation(experiment.augmentation, network.dims)
    assert network.dims == len(experiment.training.window)


@pytest.mark.parametrize("kind", plan_sets.KINDS)
def test_every_value_stands_under_a_reason(planned, kind):
    text, _, _ = planned(kind)
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert any("median" in line for line in lines[:head])
    for before, line in zip(lines[head - 1 :], lines[head:], strict=False):
        own = line.strip()
        section = own.endswith(":")
        if not own.startswith("#") and not section:
            continued = before.endswith((":", ","))
            assert continued or before.strip().startswith("#"), line
    assert max(map(len, lines)) <= 120


def test_a_plan_is_the_same_every_time_and_however_many_processes_read(planned):
    text, _, root = planned("ct")
    again = make_plan(Request(Data(root=root), "tiny", memory=8 << 30, minutes=1, workers=1)).text
    assert again == text


def test_ct_is_clipped_to_its_foreground(planned):
    _, path, root = planned("ct")
    given = Experiment.load(path).preprocessing.normalize
    assert given.kind == "dataset"
    assert given.fitted([]) == given  # as given: no scan is measured again
    values = [
        image[label > 0]
        for image, label in (
            (np.asarray(plan_sets.nib.load(root / "images" / f"case{i}.nii.gz").dataobj),
             np.asarray(plan_sets.nib.load(root / "labels" / f"case{i}.nii.gz").dataobj))
            for i in range(3)
        )
    ]  # fmt: skip
    own = np.concatenate(values).astype(float)
    wanted = (*np.percentile(own, (0.5, 99.5)), own.mean(), own.std())
    found = [given.rescale[key][0] for key in ("low", "high", "shift", "scale")]
    assert found == pytest.approx(wanted, rel=1e-3)


def test_what_follows_from_each_kind(planned):
    kinds = {kind: Experiment.load(planned(kind)[1]) for kind in plan_sets.KINDS}
    normal = {kind: experiment.preprocessing.normalize.kind for kind, experiment in kinds.items()}
    assert normal == {"ct": "dataset", "thick": "zscore", "sided": "zscore", "rgb": "range", "grey": "zscore"}
    thick = kinds["thick"]
    assert thick.preprocessing.spacing_mm == [0.8, 0.8, 5.0]
    turns = [spec for spec in thick.augmentation if spec["name"] in ("rotate", "scale")]
    assert all(spec["axes"] == [0, 1] for spec in turns)
    assert thick.network.arguments["strides"][0] == [2, 2, 1]
    assert thick.network.arguments["kernels"][0] == [3, 3, 1]
    assert not any(spec["name"] in ("flip", "rotate90") for spec in kinds["sided"].augmentation)
    assert {"name": "flip", "axes": [0]} in kinds["ct"].augmentation
    assert {"name": "flip"} in kinds["rgb"].augmentation
    assert kinds["grey"].data.labels == {"background": 0, "label_255": 255}
    assert kinds["grey"].preprocessing.spacing_mm is None


def test_broken_cases_are_left_out_with_their_reason(tmp_path):
    root = plan_sets.volumes(tmp_path / "set", (16, 16, 16), (1, 1, 1), (0, 90), np.uint8, cases=8)
    (root / "labels" / "case3.nii.gz").unlink()
    text = make_plan(Request(Data(root=root), "tiny", memory=8 << 30)).text
    assert yaml.safe_load(text)["data"]["exclude"] == ["case3"]
    lines = text.splitlines()
    assert lines[lines.index("    - case3") - 1].strip() == "# an image without a label"
    (root / "labels" / "case5.nii.gz").unlink()
    with pytest.raises(MedsegError, match=r"2 of 8 cases.*--exclude-broken"):
        make_plan(Request(Data(root=root), "tiny"))
    more = make_plan(Request(Data(root=root), "tiny", memory=8 << 30, exclude_broken=True)).text
    assert yaml.safe_load(more)["data"]["exclude"] == ["case3", "case5"]
