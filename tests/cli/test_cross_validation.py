"""All folds from the command line: trained, gone on with, pooled, and used together."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from medseg import cross_validation
from medseg.cli.app import main
from medseg.data_section import find_data, labels_of
from medseg.data_split import split_of as division
from medseg.experiment import Experiment
from medseg.fold_runs import FoldRuns
from medseg.study import prepare_folder


@pytest.fixture(scope="module")
def folded(config, keys, tmp_path_factory):
    """A cross-validated run of two folds."""
    folder = tmp_path_factory.mktemp("runs") / "cv"
    assert main(["train", str(config), *keys, "data.folds=2", "--fold", "all", "-o", str(folder)]) == 0
    return folder


def digest(run):
    return json.loads((run / "model" / "model.json").read_text())["weights_sha256"]


def split_of(run):
    return json.loads((run / "split.json").read_text())


def read(path):
    return tifffile.imread(path)


def test_every_case_is_held_out_once(folded):
    folds = split_of(folded)["folds"]
    assert sorted(name for names in folds for name in names) == [f"case{n}" for n in range(4)]
    for number in range(2):
        own = split_of(folded / f"fold{number}")
        assert own["fold"] == number
        assert own["validation"] == folds[number]
        assert own["train"] == folds[1 - number]
        assert own["folds"] == folds


def test_pooled_scores_are_of_all_cases_each_by_the_model_that_did_not_see_it(folded, data_set):
    report = json.loads((folded / "validation" / "metrics.json").read_text())
    scored = {row["case"]: row["labels"]["cell"]["dice"] for row in report["cases"]}
    assert list(scored) == [f"case{n}" for n in range(4)]
    for number, names in enumerate(split_of(folded)["folds"]):
        for name in names:
            mask = read(folded / f"fold{number}" / "validation" / f"{name}.tif") > 0
            truth = read(data_set / "labels" / f"{name}.tif") > 0
            assert scored[name] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert (folded / "validation" / "report.html").is_file()


def test_the_folds_runs_are_parts_of_one(folded, keys):
    from mlflow import MlflowClient

    uri = next(key.partition("=")[2] for key in keys if key.startswith("tracking.uri"))
    client = MlflowClient(uri)
    parent, *folds = (
        client.get_run(json.loads((run / "run.json").read_text())["run_id"])
        for run in (folded, folded / "fold0", folded / "fold1")
    )
    assert [run.data.tags["mlflow.parentRunId"] for run in folds] == [parent.info.run_id] * 2
    assert [run.data.tags["fold"] for run in (parent, *folds)] == ["all", "0", "1"]
    assert len({run.info.experiment_id for run in (parent, *folds)}) == 1
    pooled = json.loads((folded / "validation" / "metrics.json").read_text())["mean"]["dice"]
    assert parent.data.metrics["best/dice"] == pytest.approx(pooled)
    assert parent.info.status == "FINISHED"


def test_one_fold_alone_has_the_weights_of_that_fold_among_all(folded, config, keys, tmp_path, medseg):
    code, out, _ = medseg("train", config, *keys, "data.folds=2", "--fold", "1", "-o", tmp_path / "one")
    assert code == 0
    assert out.strip() == f"model: {tmp_path / 'one' / 'model'}"
    assert digest(tmp_path / "one") == digest(folded / "fold1")
    assert split_of(tmp_path / "one") == split_of(folded / "fold1")


def test_an_interrupted_run_goes_on_with_the_fold_at_which_it_stopped(
    folded, config, keys, data_set, tmp_path, medseg, refused, monkeypatch
):
    """Even where the data set has grown meanwhile: the folds are those that it began with."""
    run, trained = tmp_path / "cv", []
    whole = cross_validation.train

    def train(experiment, folder, *rest, **more):
        if folder.name == "fold1" and len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(folder.name)
        return whole(experiment, folder, *rest, **more)

    monkeypatch.setattr(cross_validation, "train", train)
    start = ("train", config, *keys, "data.folds=2", "--fold", "all", "-o", run)
    assert medseg(*start)[0] == 130
    assert FoldRuns.read(run).left == [1]
    image = data_set / "images" / "case0.tif"
    assert "fold 1 of 2 is left" in refused("infer", image, "-m", run, "-o", tmp_path / "masks")
    assert "holds a run already" in refused(*start)
    assert "leave --fold out" in refused("train", "--resume", run, "--fold", "1")
    trained.append("gone on with")
    monkeypatch.setattr("medseg.data_split.make_folds", lambda *_: pytest.fail("folds were drawn again"))
    code, out, _ = medseg("train", "--resume", run)
    assert code == 0
    assert out.strip() == f"models: {run}"
    assert trained == ["fold0", "gone on with", "fold1"]
    for fold in ("fold0", "fold1"):
        assert digest(run / fold) == digest(folded / fold)
    pooled = (json.loads((one / "validation" / "metrics.json").read_text()) for one in (run, folded))
    assert next(pooled)["cases"] == next(pooled)["cases"]


def test_a_run_that_takes_its_place_leaves_nothing_of_it(folded, tmp_path):
    run = tmp_path / "cv"
    shutil.copytree(folded, run)
    prepare_folder(run, overwrite=True)
    assert not FoldRuns.are_in(run)
    assert not (run / "fold0").exists()


def test_evaluate_pools_the_folds_of_a_run(folded, data_set, tmp_path, medseg, refused):
    code, out, _ = medseg("evaluate", folded, "--json", "-o", tmp_path / "scores")
    assert code == 0
    found, own = json.loads(out), json.loads((folded / "validation" / "metrics.json").read_text())
    assert found["cases"] == own["cases"]
    assert (tmp_path / "scores" / "report.html").is_file()
    masks = [folded / f"fold{number}" / "validation" for number in range(2)]
    both = ("--predictions", masks[0], "--predictions", masks[1])
    code, out, _ = medseg("evaluate", *both, "--references", data_set, "--json")
    assert code == 0
    assert json.loads(out)["mean"] == own["mean"]
    one = json.loads(medseg("evaluate", folded / "fold0", "--json")[1])
    assert [row["case"] for row in one["cases"]] == split_of(folded)["folds"][0]
    twice = ("--predictions", masks[0], "--predictions", masks[0])
    assert "case" in refused("evaluate", *twice, "--references", data_set)
    assert "exclude each other" in refused("evaluate", folded, *both)
    assert "nothing to evaluate" in refused("evaluate")
    assert "no references" in refused("evaluate", *both)
    assert "no masks" in refused("evaluate", folded / "validation")


def test_pooled_cases_are_in_natural_order_whatever_the_folds(folded, tmp_path, medseg):
    run = shutil.copytree(folded, tmp_path / "cv")
    split = split_of(run)
    for turned in (split["folds"], [names[::-1] for names in split["folds"][::-1]]):
        (run / "split.json").write_text(json.dumps({**split, "folds": turned}))
        cases = json.loads(medseg("evaluate", run, "--json")[1])["cases"]
        assert [row["case"] for row in cases] == [f"case{n}" for n in range(4)]


def test_evaluate_says_which_cases_have_no_mask(folded, tmp_path, medseg):
    run = tmp_path / "cv"
    shutil.copytree(folded, run)
    gone = split_of(run)["folds"][1][0]
    (run / "fold1" / "validation" / f"{gone}.tif").unlink()
    code, out, err = medseg("evaluate", run, "--json")
    assert code == 0
    assert f"1 of 4 cases have no mask: {gone}" in err
    assert json.loads(out)["missing"] == [gone]
    assert len(json.loads(medseg("evaluate", run, "--predicted-only", "--json")[1])["cases"]) == 3


def test_infer_takes_all_folds_or_some(folded, data_set, tmp_path, medseg, refused):
    image = data_set / "images" / "case2.tif"
    how = ("--probabilities", "--probability-type", "float32")

    def infer(name, *models):
        code, _, err = medseg("infer", image, *(w for m in models for w in ("-m", m)), "-o", tmp_path / name, *how)
        assert code == 0, err
        return read(tmp_path / name / "probabilities" / "case2.tif").astype(np.float64)

    folds = [folded / "fold0", folded / "fold1"]
    mean = np.mean([infer(fold.name, fold) for fold in folds], axis=0)
    np.testing.assert_allclose(infer("run", folded), mean, atol=1e-6)
    np.testing.assert_array_equal(infer("named", *folds), infer("again", folded))
    about = json.loads((tmp_path / "run" / "inference.json").read_text())
    assert about["models"] == [digest(fold) for fold in folds]
    assert medseg("infer", image, "-m", folded, "-o", tmp_path / "dry", "--dry-run")[0] == 0
    assert not (tmp_path / "dry").exists()
    error = refused("infer", image, "-m", folds[0], "-m", tmp_path / "none", "-o", tmp_path / "x")
    assert "none does not exist" in error


def write_manifest(data_set, path, folds, patients=None):
    rows = ["image,label,patient,fold"]
    for number, fold in enumerate(folds):
        patient = patients[number] if patients else f"p{number}"
        files = [f"{kind}/case{number}.tif" for kind in ("images", "labels")]
        rows.append(f"{files[0]},{files[1]},{patient},{fold}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def manifest(data_set):
    path = data_set / "folds.csv"
    yield lambda *about: write_manifest(data_set, path, *about)
    path.unlink(missing_ok=True)


LABELS = "data.labels={background: 0, cell: 255}"


def divided(config, keys, *more):
    """How an experiment divides its cases."""
    experiment = Experiment.load(config, [*keys, *more])
    found = find_data(experiment.data)
    labels = labels_of(experiment.data, found.info, found.root)
    return division(experiment.data, experiment.seed, found, found.labelled(), labels)


def test_the_data_set_s_own_folds_are_taken(data_set, config, keys, manifest, capsys):
    split = divided(config, keys, f"data.root={manifest('baba')}", LABELS, "data.fold=0")
    assert split.folds == (("case1", "case3"), ("case0", "case2"))
    assert split.validation == ("case1", "case3")
    assert "2 + 2 cases" in capsys.readouterr().err
    (data_set / "splits_final.json").write_text(
        json.dumps(
            [
                {"train": ["case0", "case3"], "val": ["case1", "case2"]},
                {"train": ["case1", "case2"], "val": ["case0", "case3"]},
            ]
        )
    )
    try:
        assert divided(config, keys, "data.fold=1").validation == ("case0", "case3")
    finally:
        (data_set / "splits_final.json").unlink()
    assert len(divided(config, keys, "data.fold=0", "data.folds=4").folds) == 4


def test_a_leak_is_an_error(data_set, config, keys, manifest, tmp_path, refused):
    run = ("train", config, *keys, "--fold", "0", "-o", tmp_path / "run")
    path = manifest("aabb", ["p0", "p1", "p1", "p3"])
    assert "of one patient" in refused(*run, f"data.root={path}", LABELS)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"folds": [["case0", "case1"], ["case1", "case2"]]}))
    assert "case1" in refused(*run, f"data.split={file}")
    final = data_set / "splits_final.json"
    final.write_text(
        json.dumps([{"train": ["case1"], "val": ["case0"]}, {"train": ["case0"], "val": ["case1", "case2"]}])
    )
    try:
        assert "does not train on just the other folds" in refused(*run)
    finally:
        final.unlink()


def test_folds_that_make_no_sense_are_refused(folded, config, keys, tmp_path, refused):
    run = ("train", config, *keys, "-o", tmp_path / "run")
    assert "none of the 2 folds" in refused(*run, "data.folds=2", "--fold", "2")
    assert "4 patients" in refused(*run, "data.folds=5", "--fold", "0")
    assert "number of a fold" in refused(*run, "--fold", "first")
    assert "names cases" in refused(*run, "--fold", "0", "data.validation=[case0]")
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"folds": [["case0", "case1"], ["case2", "case9"]]}))
    assert "case9" in refused(*run, f"data.split={file}", "--fold", "0")
    file.write_text(json.dumps({"train": ["case0"], "validation": ["case1"]}))
    assert "no folds" in refused(*run, f"data.split={file}", "--fold", "0")


def test_a_split_of_a_file_is_taken_as_it_is(folded, config, keys):
    for number in range(2):
        file = folded / f"fold{number}" / "split.json"
        assert divided(config, keys, f"data.split={file}").to_dict() == split_of(folded / f"fold{number}")
        assert divided(config, keys, f"data.split={file}", "data.fold=0").to_dict() == split_of(folded / "fold0")
