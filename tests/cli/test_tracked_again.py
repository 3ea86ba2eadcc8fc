"""Runs of infer and evaluate in a folder that has one already, and where the store is away or no store at all."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg.cli.app import main
from medseg.package import read_card
from medseg.tracking.store import Store

AWAY = "http://127.0.0.1:9"
"""Where nobody answers."""
LABELS = {"values": {"background": 0, "cell": 255}, "foreground": ["cell"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    found = Store.resolve("sqlite:///mlflow.db", tmp_path_factory.mktemp("again"))
    found.client()
    return found


@pytest.fixture(scope="module")
def other(config, keys, tmp_path_factory):
    """Another run on the same data, with masks of its validation cases."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    changed = [key for key in keys if not key.startswith("tracking.review")]
    assert main(["train", str(config), *changed, "seed=1", "-o", str(folder)]) == 0
    return folder


@pytest.fixture
def masks(data_set, tmp_path):
    """Makes a folder of masks: the labels moved by some columns, of a model of that digest."""

    def make(shift, digest=None, dataset="cells"):
        folder = tmp_path / f"masks {shift} {digest}"
        folder.mkdir()
        for path in sorted((data_set / "labels").iterdir()):
            tifffile.imwrite(folder / path.name, np.roll(tifffile.imread(path), shift, axis=1))
        if digest is not None:
            about = {"model": digest, "models": [digest], "training": {"dataset": dataset}}
            (folder / "inference.json").write_text(json.dumps({**about, "labels": LABELS}))
        return folder

    return make


@pytest.fixture
def evaluated(medseg, data_set, tmp_path):
    """Evaluates masks, tracked, always into the same folder."""

    def run(masks, store, *words, references=None):
        line = ("--predictions", masks, "--references", references or data_set, "-o", tmp_path / "scores")
        code, _, err = medseg("evaluate", *line, "--overwrite", "--store", store, *words)
        assert code == 0, err
        return err

    return run


def runs_named(store, name):
    """All runs of that name, the first one first."""
    client = store.client()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return client.search_runs(experiments, f"tags.mlflow.runName = '{name}'", order_by=["attributes.start_time"])


def kept(tmp_path):
    """The run that the folder of scores keeps."""
    return json.loads((tmp_path / "scores" / "run.json").read_text())["run_id"]


def scores_in(store, run_id):
    """The mean Dice of the file among a run's artifacts."""
    return json.loads(Path(store.client().download_artifacts(run_id, "metrics.json")).read_text())["mean"]["dice"]


def test_a_row_is_of_one_model_one_set_of_references_and_one_question(evaluated, masks, store, data_set, tmp_path):
    first, second = masks(1, "a" * 64), masks(2, "b" * 64)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted((data_set / "labels").iterdir())[:2]:
        (fewer / path.name).write_bytes(path.read_bytes())
    evaluated(first, store.uri)
    ids, dice = [kept(tmp_path)], [scores_in(store, kept(tmp_path))]
    for folder, words, references in (
        (second, ("--metrics", "counts"), None),
        (second, ("--metrics", "dice"), None),
        (second, ("--metrics", "dice"), fewer),
    ):
        evaluated(folder, store.uri, *words, references=references)
        ids, dice = [*ids, kept(tmp_path)], [*dice, scores_in(store, kept(tmp_path))]
    assert len(set(ids)) == 4 and len(set(dice[:2])) == 2
    rows = [store.client().get_run(run_id).data for run_id in ids]
    assert [row.tags["medseg.weights"] for row in rows] == ["a" * 64] + ["b" * 64] * 3
    assert [row.metrics["test/dice"] for row in rows] == pytest.approx(dice)
    assert any(name.startswith("test/hd95") for name in rows[0].metrics)
    assert not any(name.startswith("test/hd95") for row in rows[1:] for name in row.metrics)
    assert not [tag for row in rows for tag in row.tags if tag.startswith("changed.")]
    assert rows[2].tags["references.digest"] != rows[3].tags["references.digest"]
    assert not (tmp_path / "scores" / "earlier").exists(), "all of it was delivered"


def test_masks_of_which_nothing_is_known_are_told_apart_by_their_scores(evaluated, masks, store, tmp_path):
    ids = []
    for shift in (3, 3, 4):
        folder = tmp_path / f"masks {shift} None"
        evaluated(folder if folder.exists() else masks(shift), store.uri)
        ids.append(kept(tmp_path))
    assert ids[0] == ids[1] != ids[2]
    history = store.client().get_metric_history(ids[0], "test/dice")
    assert [point.step for point in history] == [0, 1] and history[0].value == history[1].value


def test_a_run_that_was_deleted_is_not_gone_on_with(evaluated, masks, store, tmp_path):
    folder = masks(5, "c" * 64)
    evaluated(folder, store.uri)
    first = kept(tmp_path)
    store.client().delete_run(first)
    evaluated(folder, store.uri)
    assert kept(tmp_path) != first


def test_what_waits_for_its_store_is_kept_and_delivered_by_sync(evaluated, masks, medseg, store, tmp_path):
    dice = []
    for shift, digest in ((6, "d" * 64), (7, "e" * 64)):
        err = evaluated(masks(shift, digest), AWAY)
        assert err.count("warning: ") == 1 and "does not answer" in err and f"medseg sync {tmp_path / 'scores'}" in err
        dice.append(json.loads((tmp_path / "scores" / "metrics.json").read_text())["mean"]["dice"])
    code, out, err = medseg("sync", tmp_path / "scores", "--store", store.uri)
    assert code == 0 and "gone" not in err and out.count("values and") == 2
    experiment = store.client().get_experiment_by_name("cells: cell").experiment_id
    found = store.client().search_runs([experiment])
    by_weights = {run.data.tags["medseg.weights"]: run for run in found}
    assert [by_weights[digest * 64].data.metrics["test/dice"] for digest in "de"] == pytest.approx(dice)
    assert [scores_in(store, by_weights[digest * 64].info.run_id) for digest in "de"] == dice
    assert kept(tmp_path) == by_weights["e" * 64].info.run_id


def test_scores_are_shown_where_nothing_can_keep_the_run(medseg, masks, data_set):
    line = ("evaluate", "--predictions", masks(0), "--references", data_set, "--json")
    code, out, err = medseg(*line, "--store", AWAY)
    assert code == 0 and json.loads(out)["mean"]["dice"] == 1
    assert err.count("warning: ") == 1 and "-o OUT" in err


def test_a_store_that_can_never_take_it_is_told_before_anything_is_computed(
    refused, masks, trained, data_set, store, tmp_path
):
    newer, deleted, foreign = (tmp_path / f"{name}.db" for name in ("newer", "deleted", "foreign"))
    for path in (newer, deleted):
        path.write_bytes(store.database.read_bytes())
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of_tomorrow'")
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    client = Store.resolve(f"sqlite:///{deleted}").client()
    found = client.get_experiment_by_name("cells: cell")
    client.delete_experiment(found.experiment_id if found else client.create_experiment("cells: cell"))
    evaluate = ("evaluate", "--predictions", masks(0, "f" * 64), "--references", data_set)
    infer = ("infer", data_set / "images", "-m", trained)
    for path, said in ((newer, "another schema"), (deleted, "was deleted"), (foreign, "not MLflow's")):
        for line in (evaluate, infer):
            assert said in refused(*line, "-o", tmp_path / "out", "--store", f"sqlite:///{path}")
            assert not (tmp_path / "out").exists()


def test_a_folder_that_keeps_a_training_keeps_it(refused, masks, data_set, trained, store):
    before = (trained / "tracking" / "log.jsonl").read_bytes(), (trained / "metrics.csv").read_bytes()
    line = ("evaluate", "--predictions", masks(0), "--references", data_set, "-o", trained, "--overwrite")
    assert "keeps the run of a training" in refused(*line, "--store", store.uri)
    assert before == ((trained / "tracking" / "log.jsonl").read_bytes(), (trained / "metrics.csv").read_bytes())


def test_another_models_masks_are_another_run_with_its_scans_alone(medseg, data_set, trained, other, store, tmp_path):
    scans = sorted((data_set / "images").iterdir())
    for model, some in ((trained, scans), (other, scans[:3]), (other, scans[:3])):
        code, _, err = medseg("infer", *some, "-m", model, "-o", tmp_path / "two", "--overwrite", "--store", store.uri)
        assert code == 0, err
    first, second = runs_named(store, "inference two")
    weights = [read_card(model / "model").weights_sha256 for model in (trained, other)]
    assert [run.data.tags["medseg.weights"] for run in (first, second)] == weights
    assert [run.data.metrics["scans"] for run in (first, second)] == [4, 3]
    steps = [
        [point.step for point in store.client().get_metric_history(run.info.run_id, "scans")] for run in (first, second)
    ]
    assert steps == [[0], [0, 1]]


def test_a_scan_that_cannot_be_read_is_told_and_leaves_no_run(refused, trained, store, tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    said = refused("infer", tmp_path / "broken.tif", "-m", trained, "-o", tmp_path / "none", "--store", store.uri)
    assert "broken.tif" in said and not runs_named(store, "inference none")


def test_what_several_models_did_goes_to_the_experiment_of_their_data_set(
    medseg, data_set, trained, other, store, tmp_path
):
    out = tmp_path / "together"
    assert medseg("infer", data_set / "images", "-m", trained, "-m", other, "-o", out, "--store", store.uri)[0] == 0
    line = ("--predictions", out, "--references", data_set, "-o", tmp_path / "scores together")
    assert medseg("evaluate", *line, "--store", store.uri)[0] == 0
    weights = ", ".join(read_card(model / "model").weights_sha256 for model in (trained, other))
    for name in ("inference together", "evaluation scores together"):
        (run,) = runs_named(store, name)
        assert store.client().get_experiment(run.info.experiment_id).name == "cells: cell"
        assert run.data.tags["dataset.name"] == "cells" and run.data.tags["medseg.weights"] == weights


def pictures_of(store, run):
    """The names of a run's pictures, without steps and times."""
    places = [file.path for file in store.client().list_artifacts(run.info.run_id, "images")]
    return {place.partition("/")[2].partition("+")[0].replace("~", "/") for place in places if place.endswith(".png")}


def test_an_evaluation_has_the_pictures_that_a_training_has(medseg, evaluated, masks, data_set, store, tmp_path):
    charts = {"charts/dice", "charts/hd95_voxels", "charts/confusion"}
    evaluated(masks(8, "8" * 64), store.uri)
    run = store.client().get_run(kept(tmp_path))
    assert pictures_of(store, run) == {*charts, "cases/worst", "cases/median", "cases/best"}
    assert "worst case" in run.data.tags["mlflow.note.content"]
    assert "report.html" in {file.path for file in store.client().list_artifacts(run.info.run_id)}

    evaluated(masks(9, "9" * 64), store.uri, "--no-html")
    run = store.client().get_run(kept(tmp_path))
    assert pictures_of(store, run) == charts
    files = {file.path for file in store.client().list_artifacts(run.info.run_id)}
    assert "metrics.json" in files and "report.html" not in files, "the page there is of the other masks"

    line = ("evaluate", "--predictions", masks(10, "0" * 64), "--references", data_set)
    err = medseg(*line, "--store", store.uri)[2]
    (run,) = [run for run in runs_named(store, "evaluation") if run.info.run_id in err]
    assert "cases/worst" in pictures_of(store, run)


def test_a_runs_own_masks_are_linked_to_its_model(medseg, other, store, tmp_path):
    for out in ((), ("-o", tmp_path / "own")):
        code, _, err = medseg("evaluate", other, "--store", store.uri, *out)
        assert code == 0
        run = store.client().get_run(err.partition("run: ")[2].split()[0])
        assert store.client().get_experiment(run.info.experiment_id).name == "cells: cell"
        assert run.data.tags["medseg.weights"] == read_card(other / "model").weights_sha256
        assert "cases/worst" in pictures_of(store, run)
