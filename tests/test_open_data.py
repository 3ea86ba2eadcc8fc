"""A data set as an experiment sees it."""

import pytest

from medseg.datasets.phantom import write_phantom
from medseg.experiment import Experiment
from medseg.open_data import OpenData


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_phantom("cells2d", tmp_path_factory.mktemp("data") / "cells", 12, (48, 48), 0)


def opened(root):
    content = {
        "name": "salted",
        "data": {"root": str(root), "case_names": "digest", "validation": 0.25},
        "network": {"name": "unet"},
    }
    return OpenData.open(Experiment.model_validate(content))


def test_samples_are_the_same_under_every_salt(root, monkeypatch):
    names, stems = [], []
    for salt in ("one salt of sixteen characters", "another salt, as long as that"):
        monkeypatch.setenv("MEDSEG_CASE_SALT", salt)
        data = opened(root)
        names.append([request.case.name for request in data.requests()])
        stems.append([[case.stem for case in map(data.cases.__getitem__, part)] for part in names[-1:]])
        stems.append([[data.cases[case.name].stem for case in data.validation()]])
    assert not set(names[0]) & set(names[1])
    assert stems[:2] == stems[2:]
    assert stems[0][0] == sorted(stems[0][0])
