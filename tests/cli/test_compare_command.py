"""medseg compare, from reports and runs to tables, files and MLflow."""

import json
import sqlite3
from functools import partial

import numpy as np
import pytest
from PIL import Image

from medseg.cli.app import main
from medseg.tracking import store as store_module
from medseg.tracking.store import Store

FILES = ["cases.csv", "comparison.csv", "comparison.json", "comparison.md", "comparison.png"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Two reports on eight pictures."""
    root = tmp_path_factory.mktemp("reports")
    rng = np.random.default_rng(0)
    references = [rng.random((12, 10)) < 0.4 for _ in range(8)]
    for name, wrong in (("r", 0.0), ("poor", 0.3), ("good", 0.02)):
        (root / name).mkdir()
        for i, mask in enumerate(references):
            Image.fromarray((mask ^ (rng.random(mask.shape) < wrong)).astype(np.uint8)).save(root / name / f"c{i}.png")
    for name in ("poor", "good"):
        words = ["--predictions", root / name, "--references", root / "r", "-o", root / name / "report"]
        assert main(["evaluate", *map(str, words)]) == 0
    return root


@pytest.fixture
def pair(reports):
    return [reports / name / "report" for name in ("poor", "good")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of one's own to be in, without a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_reports_are_compared_written_and_tracked(medseg, pair, here):
    code, out, err = medseg("compare", *pair, "-o", "out")
    assert code == 0, err
    assert "good (second) against poor (first)" in out and "better" in out and "Cases that differ most" in out
    assert sorted(path.name for path in (here / "out").iterdir()) == [*FILES, "run.json", "tracking"]
    client = Store.resolve().client()
    (run,) = client.search_runs([client.get_experiment_by_name("comparisons").experiment_id])
    assert run.info.run_name == "good against poor" and run.info.status == "FINISHED"
    assert set(FILES) <= {file.path for file in client.list_artifacts(run.info.run_id)}


def test_another_comparison_in_the_same_folder_is_another_run(medseg, pair, here):
    for words in (pair, pair, pair[::-1]):
        assert medseg("compare", *words, "-o", "out", "--overwrite")[0] == 0
    client = Store.resolve().client()
    runs = client.search_runs([client.get_experiment_by_name("comparisons").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["good against poor", "poor against good"]


def test_tracked_evaluations_are_compared_by_their_names(medseg, reports, here):
    folders = []
    for name in ("poor", "good"):
        words = ["--predictions", reports / name, "--references", reports / "r", "-o", here / name, "--track"]
        assert medseg("evaluate", *words)[0] == 0
        folders.append(here / name)
    names = [f"evaluation {folder.name}" for folder in folders]
    found = [json.loads(medseg("compare", *words, "--no-tracking", "--json")[1]) for words in (names, folders)]
    rows = [[{**row, "first": None, "second": None} for row in content["rows"]] for content in found]
    assert rows[0] == rows[1]


def test_without_tracking_nothing_is_left_but_what_is_asked_for(medseg, refused, pair, here):
    code, out, _ = medseg("compare", *pair, "--no-tracking", "--json", "--metrics", "dice,iou")
    content = json.loads(out)
    assert code == 0 and [row["metric"] for row in content["rows"]] == ["dice", "iou"]
    assert list(here.iterdir()) == []
    medseg("compare", *pair, "--no-tracking", "-o", "out")
    assert "comparison.csv exists" in refused("compare", *pair, "--no-tracking", "-o", "out")
    assert medseg("compare", *pair, "--no-tracking", "-o", "out", "--overwrite")[0] == 0
    assert [path.name for path in here.iterdir()] == ["out"]


def test_the_same_seed_gives_the_same_numbers(medseg, pair, here):
    def rows(*words):
        return json.loads(medseg("compare", *pair, "--no-tracking", "--json", *words)[1])["rows"]

    assert rows() == rows("--seed", "0") != rows("--seed", "1")


def test_a_store_that_cannot_be_used_is_one_sentence(refused, pair, here, monkeypatch):
    foreign = sqlite3.connect(here / "foreign.db")
    foreign.execute("CREATE TABLE patients (name)")
    foreign.commit()
    foreign.close()
    assert "not MLflow's" in refused("compare", *pair, "--store", "sqlite:///foreign.db", "-o", "out")
    locked = sqlite3.connect(here / "locked.db", isolation_level=None)
    locked.execute("CREATE TABLE alembic_version (version_num)")
    locked.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(store_module.sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    assert "database is locked" in refused("compare", *pair, "--store", "sqlite:///locked.db", "-o", "out")
    locked.close()
    assert "refuse the file store" in refused("compare", *pair, "--store", "mlruns")
    assert not (here / "out").exists()


def test_wrong_words_are_one_sentence(refused, pair, here):
    assert "needs two" in refused("compare", pair[0], "--no-tracking")
    assert "did you mean 'good'" in refused("compare", pair[0], pair[0].parents[1] / "god", "--no-tracking")
    assert "no hd96; did you mean 'hd95'" in refused("compare", *pair, "--metrics", "hd96", "--no-tracking")
    assert "no label '2'" in refused("compare", *pair, "--labels", "2", "--no-tracking")


@pytest.fixture(scope="session")
def trained_again(config, keys, tmp_path_factory):
    """A run like the trained one, with another learning rate."""
    folder = tmp_path_factory.mktemp("again") / "other"
    assert main(["train", str(config), *keys, "training.learning_rate=0.01", "-o", str(folder)]) == 0
    return folder


def test_runs_are_compared_by_the_validation_that_chose_their_weights(medseg, trained, trained_again, here):
    code, out, err = medseg("compare", trained, trained_again, "-o", "out", "--metrics", "dice")
    assert code == 0, err
    assert "other (second) against tiny (first)" in out and "no difference can be claimed: of 1 cases" in out
    content = json.loads((here / "out" / "comparison.json").read_text())
    card = json.loads((trained / "model" / "model.json").read_text())
    place = json.loads((trained / "run.json").read_text())
    assert content["compared"][0]["step"] == card["training"]["step"]
    (row,) = content["rows"]
    assert row["metric"] == "dice" and row["first_mean"] == pytest.approx(card["training"]["val/dice_mean"])
    client = Store.resolve(place["store"]).client()
    (experiment,) = [e for e in client.search_experiments() if e.name == "cells: cell"]
    run = next(r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "other against tiny")
    assert run.data.tags["compared.1.run_id"] == place["run_id"]
    assert run.data.tags["dataset.digest"] == card["training"]["dataset_digest"]
    alone = ("--no-tracking", "--json")
    by_id = medseg("compare", place["run_id"], trained_again, "--store", place["store"], *alone, "--metrics", "dice")[1]
    assert json.loads(by_id)["rows"][0]["difference"] == row["difference"]
    assert not (here / "mlflow.db").exists()
