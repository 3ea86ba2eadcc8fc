"""report.html from the command line: beside an evaluation's metrics, and at the end of a training."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from medseg.cli.app import main
from medseg.tracking.store import Store


@pytest.fixture
def predictions(data_set, tmp_path):
    """Masks of all but the last case: the labels, one of them upside down."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number, path in enumerate(sorted((data_set / "labels").iterdir())[:-1]):
        label = tifffile.imread(path)
        tifffile.imwrite(folder / path.name, label[::-1] if number == 1 else label)
    return folder


def words(predictions, references, out):
    return "evaluate", "--predictions", predictions, "--references", references, "-o", out


def data_of(page):
    text = page.read_text()
    start = text.index('<script type="application/json" id="report">')
    return json.loads(text[text.index(">", start) + 1 : text.index("</script>", start)])


def test_an_evaluation_of_a_data_set_has_a_page(medseg, data_set, predictions, tmp_path):
    code, _, err = medseg(*words(predictions, data_set, tmp_path / "out"))
    assert code == 0 and str(tmp_path / "out" / "report.html") in err
    content = data_of(tmp_path / "out" / "report.html")
    assert content["names"] == ["case0", "case1", "case2", "case3"]
    assert [content["names"][case["index"]] for case in content["cases"]][:2] == ["case3", "case1"]
    assert all(case["parts"][0]["image"] for case in content["cases"])


def test_images_are_matched_by_stem_or_first_channel(medseg, data_set, predictions, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(data_set / "labels", elsewhere / "truth")
    (elsewhere / "pictures").mkdir()
    for path in sorted((data_set / "images").iterdir())[1:]:
        shutil.copy(path, elsewhere / "pictures" / f"{path.stem}_0000.tif")
    line = words(predictions, elsewhere / "truth", tmp_path / "out")
    assert medseg(*line)[0] == 0
    assert not (tmp_path / "out" / "report.html").exists(), "no images are known"
    assert medseg(*line, "--images", elsewhere / "pictures", "--overwrite")[0] == 0
    content = data_of(tmp_path / "out" / "report.html")
    known = {content["names"][case["index"]]: case["parts"][0]["image"] is not None for case in content["cases"]}
    assert known == {"case0": False, "case1": True, "case2": True, "case3": True}


def test_a_data_set_whose_labels_have_an_ending_has_a_page(medseg, data_set, predictions, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(data_set / "images", root / "images")
    (root / "masks").mkdir()
    for path in (data_set / "labels").iterdir():
        shutil.copy(path, root / "masks" / f"{path.stem}_segmentation.tif")
    for references in (root, root / "masks"):
        out = tmp_path / references.name
        assert medseg(*words(predictions, references, out))[0] == 0
        content = data_of(out / "report.html")
        assert content["names"] == ["case0", "case1", "case2", "case3"]
        assert all(case["parts"][0]["image"] for case in content["cases"])


def test_no_page_where_none_is_wanted(medseg, data_set, predictions, tmp_path):
    assert medseg(*words(predictions, data_set, tmp_path / "out"), "--no-html")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.csv", "metrics.json"}


def test_what_is_wrong_with_the_images_is_told(refused, medseg, data_set, predictions, tmp_path):
    line = words(predictions, data_set, tmp_path / "out")
    assert "no such file or folder" in refused(*line, "--images", tmp_path / "nowhere")
    assert "say with -o" in refused(*line[:-2], "--images", data_set / "images")
    (tmp_path / "other").mkdir()
    tifffile.imwrite(tmp_path / "other" / "case_7.tif", np.zeros((48, 40), np.uint8))
    assert "holds no image of the stem of a case, such as 'case0'" in refused(*line, "--images", tmp_path / "other")
    tifffile.imwrite(tmp_path / "other" / "case1.tif", np.zeros((8, 8), np.uint8))
    assert "different shapes" in refused(*line, "--images", tmp_path / "other", "--overwrite")


def test_a_page_that_is_there_is_kept(refused, data_set, predictions, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("mine")
    assert "report.html exists" in refused(*words(predictions, data_set, tmp_path / "out"))
    assert (tmp_path / "out" / "report.html").read_text() == "mine"
    assert not (tmp_path / "out" / "metrics.json").exists()


@pytest.fixture(scope="module")
def reviewed(config, keys, tmp_path_factory):
    """A run's folder with its review."""
    folder = tmp_path_factory.mktemp("runs") / "reviewed"
    assert main(["train", str(config), *keys, "tracking.review=true", "-o", str(folder)]) == 0
    return folder


def test_a_run_ends_with_masks_scores_and_a_page(reviewed, medseg, data_set, tmp_path):
    """As medseg infer and medseg evaluate would make them of its model."""
    (name,) = json.loads((reviewed / "split.json").read_text())["validation"]
    folder = reviewed / "validation"
    held = {path.name for path in folder.iterdir()}
    assert held == {f"{name}.tif", "inference.json", "metrics.csv", "metrics.json", "report.html"}
    out = tmp_path / "out"
    assert medseg("infer", data_set / "images" / f"{name}.tif", "--model", reviewed, "-o", out)[0] == 0
    assert np.array_equal(tifffile.imread(out / f"{name}.tif"), tifffile.imread(folder / f"{name}.tif"))
    line = ("--predictions", folder, "--references", data_set / "labels", "--predicted-only", "--json")
    code, said, _ = medseg("evaluate", *line)
    scores = json.loads(said)
    assert [case.pop("trained_on") for case in scores["cases"]] == [False]  # which only medseg evaluate looks up
    assert code == 0 and scores == json.loads((folder / "metrics.json").read_text())
    assert data_of(folder / "report.html")["names"] == [name]


def test_mlflow_has_the_pictures_and_the_page(reviewed):
    place = json.loads((reviewed / "run.json").read_text())
    client = Store.resolve(place["store"]).client()
    artifacts = {file.path for file in client.list_artifacts(place["run_id"])}
    assert {"report.html", "validation", "images", "tables"} <= artifacts
    pictures = [file.path for file in client.list_artifacts(place["run_id"], "images")]
    for kind in ("charts~curves", "charts~dice", "charts~confusion", "cases~worst"):
        assert any(path.startswith(f"images/{kind}+step+0+") for path in pictures), kind
    scores = json.loads((reviewed / "validation" / "metrics.json").read_text())["mean"]
    logged = client.get_run(place["run_id"]).data.metrics
    assert logged["best/dice"] == pytest.approx(scores["dice"])


def test_a_review_that_fails_costs_no_training(medseg, config, keys, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg.tracking.review.show_cases", full)
    code, out, err = medseg("train", config, *keys, "tracking.review=true", "-o", tmp_path / "run")
    assert code == 0 and out.splitlines()[-1].startswith("model: ")
    assert "No space left on device" in err
    assert not (tmp_path / "run" / "validation").exists()
