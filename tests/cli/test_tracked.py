"""infer and evaluate as runs of MLflow: linked to the model's, and without a path of a scan."""

import json

import pytest

from medseg.package import read_card
from medseg.tracking.store import Store


@pytest.fixture(scope="module")
def store(trained):
    return Store.resolve(json.loads((trained / "run.json").read_text())["store"])


def runs_of(store, kind):
    client = store.client()
    experiment = client.get_experiment_by_name("cells: cell")
    return client.search_runs([experiment.experiment_id], f"tags.`medseg.kind` = '{kind}'")


def test_what_is_done_with_a_model_is_linked_to_its_training(medseg, trained, data_set, store, tmp_path):
    out, scores = tmp_path / "out", tmp_path / "scores"
    scan = data_set / "images" / "case0.tif"
    code, _, err = medseg("infer", scan, "-m", trained, "-o", out, "--store", store.uri)
    assert code == 0 and "run: " in err
    weights = read_card(trained / "model").weights_sha256
    trained_run = json.loads((trained / "run.json").read_text())["run_id"]
    (run,) = runs_of(store, "inference")
    # Others may have trained the same weights from the same seed.
    assert run.data.tags["medseg.weights"] == weights and trained_run in run.data.tags["model.run_id"].split(", ")
    assert run.data.metrics["scans"] == 1 and run.data.metrics["scans/skipped"] == 0
    assert run.inputs.dataset_inputs[0].tags[0].value == "inference"
    assert "case0" not in json.dumps([run.data.params, run.data.tags])

    line = ("evaluate", "--predictions", out, "--references", data_set / "labels", "--predicted-only", "--track")
    assert medseg(*line, "--store", store.uri, "-o", scores)[0] == 0
    (run,) = runs_of(store, "evaluation")
    # Others may have trained the same weights from the same seed.
    assert run.data.tags["medseg.weights"] == weights and trained_run in run.data.tags["model.run_id"].split(", ")
    mean = json.loads((scores / "metrics.json").read_text())["mean"]
    assert run.data.metrics["test/dice"] == pytest.approx(mean["dice"])
    assert "mean of 1 case" in run.data.tags["mlflow.note.content"]

    medseg(*line, "--store", store.uri, "-o", scores, "--overwrite")
    (again,) = runs_of(store, "evaluation")
    assert [m.step for m in store.client().get_metric_history(again.info.run_id, "test/dice")] == [0, 1]


def test_a_training_says_where_its_time_went(trained, store):
    run = store.client().get_run(json.loads((trained / "run.json").read_text())["run_id"])
    phases = {name: value for name, value in run.data.metrics.items() if name.startswith("seconds/")}
    assert {"seconds/reading", "seconds/augmentation", "seconds/forward_backward", "seconds/validation"} <= set(phases)
    alone = ("waiting", "forward_backward", "validation", "logging", "checkpoints")
    assert 0 < sum(phases[f"seconds/{name}"] for name in alone) <= phases["seconds/total"] * 1.5
    assert run.data.tags["stopped"] == "steps" and "best validation Dice" in run.data.tags["mlflow.note.content"]


def test_a_training_that_diverges_says_so_in_one_sentence_and_in_its_run(refused, config, keys, tmp_path):
    wild = ("training.optimizer=sgd", "training.learning_rate=1e38", "training.warmup_steps=0", "training.max_steps=24")
    said = refused("train", config, *keys, *wild, "training.gradient_clip=null", "-o", tmp_path / "wild")
    assert "no finite numbers" in said and "lower training.learning_rate=1e+38, or set training.gradient_clip" in said
    kept = json.loads((tmp_path / "wild" / "run.json").read_text())
    run = Store.resolve(kept["store"]).client().get_run(kept["run_id"])
    assert run.info.status == "FAILED" and f"error: {run.data.tags['stopped']}" == said
    assert not (tmp_path / "wild" / "model").exists()


def test_a_store_that_cannot_be_used_is_told_before_anything_is_computed(refused, trained, data_set, tmp_path):
    line = ("evaluate", "--predictions", data_set / "labels", "--references", data_set / "labels", "-o", tmp_path / "o")
    assert "refuse the file store" in refused(*line, "--store", "mlruns")
    assert not (tmp_path / "o").exists()
