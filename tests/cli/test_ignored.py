"""A label to ignore, from the data set to the scores: never learned, never predicted, never scored."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg.data_section import labels_of
from medseg.datasets.layouts import read_dataset
from medseg.errors import MedsegError
from medseg.experiment import Data
from medseg.package import read_card

VOID = 7
LOSS = "loss={name: ce, weights: median_frequency}"


@pytest.fixture
def partly(data_set, tmp_path):
    """The tiny data set, of whose references one half is to be ignored."""
    root = tmp_path / "partly"
    shutil.copytree(data_set, root)
    for path in (root / "labels").iterdir():
        label = tifffile.imread(path)
        label[:, 20:] = VOID
        tifffile.imwrite(path, label)
    info = json.loads((root / "dataset.json").read_text())
    info["labels"]["ignore"] = VOID
    (root / "dataset.json").write_text(json.dumps(info))
    return root


def test_from_the_data_set_to_the_scores(medseg, config, keys, partly, tmp_path):
    run, masks = tmp_path / "run", tmp_path / "masks"
    keys = [key for key in keys if not key.startswith("data.root")]
    code, _, err = medseg("train", config, f"data.root={partly}", *keys, LOSS, "-o", run)
    assert code == 0, err
    assert read_card(run / "model").label_map.ignore == ("ignore",)
    assert medseg("infer", "-m", run / "model", partly / "images", "-o", masks)[0] == 0
    scored = medseg("evaluate", "--predictions", masks, "--references", partly / "labels", "-o", tmp_path)
    assert scored[0] == 0, scored[2]
    with (tmp_path / "metrics.csv").open() as table:
        dice = {row["case"]: float(row["dice"]) for row in csv.DictReader(table)}
    for path in (partly / "labels").iterdir():
        predicted, expected = tifffile.imread(masks / path.name), tifffile.imread(path)
        assert not (predicted == VOID).any()
        a, b = (values[expected != VOID] == 255 for values in (predicted, expected))
        assert dice[path.stem] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_the_config_may_name_it_or_the_data_set(partly):
    info = read_dataset(partly)
    assert labels_of(Data(), info, partly).ignore == ("ignore",)
    named = Data(labels={"background": 0, "cell": 255, "void": VOID}, ignore=["void"])
    assert labels_of(named, info, partly).ignore == ("void",)
    assert labels_of(named, None, Path("x")).foreground == ("cell",)
    info = info.model_copy(update={"labels": {"background": 0, "cell": 255, "void": VOID}})
    assert labels_of(Data(), info, partly).foreground == ("cell", "void")
    assert labels_of(Data(ignore=["void"]), info, partly).foreground == ("cell",)
    info = info.model_copy(update={"ignore": ["void"]})
    assert labels_of(Data(), info, partly).ignore == ("void",)
    assert np.array_equal(labels_of(Data(), info, partly).encode(np.array([0, VOID, 255])), [0, -1, 1])
    with pytest.raises(MedsegError, match="ignored label 'vod' is not among the labels"):
        labels_of(Data(ignore=["vod"]), info, partly)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loss={name: ce, weights: [1, 2, 3]}", "there are 2 classes"),
        ("loss={name: ce, weights: median}", "did you mean 'median_frequency'"),
        ("loss={name: focal, gamma: 0.5}", "0, or a number of 1 or more"),
        ("loss.name=fokal", "'focal'"),
        ("training.auxiliary_weights=[0.4]", "0 auxiliary outputs"),
        ("training.rate_factors={scor: 10}", "did you mean 'score'"),
        ("training.nesterov=true", "needs optimizer: sgd"),
        ("training.optimizer=sdg", "'sgd'"),
        ("training.schedule=plateau", "'cosine'"),
        ("training.step_at=[0.7, 0.2]", "rising order"),
        ("data.ignore=[cel]", "did you mean 'cell'"),
        ("data.ignore=[background]", "cannot be ignored"),
    ],
)
def test_a_key_that_is_wrong_is_refused(refused, config, keys, tmp_path, change, message):
    assert message in refused("train", config, *keys, change, "-o", tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
