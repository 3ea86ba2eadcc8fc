"""``medseg plan``, in this process."""

import pytest
import yaml

from medseg.experiment import Experiment


@pytest.fixture(scope="module")
def written(data_set, tmp_path_factory):
    """A config planned by the command line."""
    from medseg.cli.app import main

    path = tmp_path_factory.mktemp("planned") / "cells.yaml"
    assert main(["plan", str(data_set), "-o", str(path), "--memory", "6GiB", "--minutes", "2"]) == 0
    return path


def test_the_config_is_there_and_the_next_command_is_told(medseg, data_set, tmp_path):
    path = tmp_path / "new" / "cells.yaml"
    code, out, err = medseg("plan", data_set, "-o", path, "--memory", "6GiB", "--minutes", "2", "--network", "unet")
    assert code == 0
    assert out.strip() == str(path)
    assert f"medseg train {path}" in err
    experiment = Experiment.load(path)
    assert experiment.network.name == "unet"
    assert experiment.training.max_minutes == 2
    assert experiment.name == "cells"
    assert {p.name for p in path.parent.iterdir()} == {"cells.yaml"}


def test_what_is_planned_trains(medseg, written, tmp_path):
    narrow = [
        "network.width=2",
        "network.depth=2",
        "training.window=[16]",
        "training.max_steps=1",
        "training.workers=0",
    ]
    narrow += ["training.validations=1", "training.precision=32", "tracking.review=false", "tracking.pictures=0"]
    store = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    kept = yaml.safe_load(written.read_text())["network"]
    keys = [f"network.{key}=null" for key in ("kernels", "strides") if key in kept]
    code, out, err = medseg("train", written, *narrow, *keys, store, "-o", tmp_path / "run")
    assert code == 0, err
    assert "model:" in out


def test_keys_of_the_data_section_count(medseg, data_set, tmp_path):
    path = tmp_path / "cells.yaml"
    labels = "data.labels={nothing: 0, nucleus: 255}"
    words = ["plan", data_set, labels, "data.foreground=[nucleus]", "-o", path, "--memory", "6GiB"]
    assert medseg(*words)[0] == 0
    data = Experiment.load(path).data
    assert data.labels == {"nothing": 0, "nucleus": 255}
    assert data.foreground == ["nucleus"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network", "dynnet"], "did you mean 'dynunet'"),
        (["--minutes", "0"], "--minutes 0"),
        (["--minutes", "nan"], "--minutes nan"),
        (["--memory", "lots"], "no size"),
        (["--memory", "1026MiB"], "batch of 1"),
        (["training.batch=4"], "data section"),
        (["data.layouts=msd"], "layouts"),
    ],
)
def test_mistakes_are_told(refused, data_set, tmp_path, words, said):
    assert said in refused("plan", data_set, "-o", tmp_path / "new.yaml", *words)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(medseg, refused, data_set, written, tmp_path):
    before = written.read_text()
    assert "--overwrite" in refused("plan", data_set, "-o", written)
    assert written.read_text() == before
    assert "end it with .yaml" in refused("plan", data_set, "-o", tmp_path / "config.txt")
    refused("plan", tmp_path / "none", "-o", tmp_path / "new.yaml")
    assert medseg("plan", data_set, "-o", written, "--overwrite", "--memory", "6GiB", "--minutes", "2")[0] == 0
    assert written.read_text() == before
