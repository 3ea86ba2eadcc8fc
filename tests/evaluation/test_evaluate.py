"""Predictions are matched by stem, scored, summed up and written."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medseg.datasets.labels import Labels
from medseg.errors import GridError, MedsegError, OutputError
from medseg.evaluation.evaluate import evaluate
from medseg.evaluation.report import Spread

CELLS = Labels({"membrane": 0, "cell": 255}, ("membrane",))
HALF = np.repeat(np.array([[0], [255]], np.uint8), 4, 1)
ALL = np.zeros((2, 4), np.uint8)


def save(folder: Path, **masks: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    return folder


def test_cases_are_matched_scored_and_summed_up(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p", a2=HALF, a10=ALL, extra=ALL)
    references = save(tmp_path / "r", a2=HALF, a10=HALF, gone=HALF)
    report = evaluate(predictions, references, CELLS, tmp_path / "out")
    assert [case.name for case in report.cases] == ["a2", "a10", "gone"]
    assert report.missing == ("gone",) and report.extra == ("extra",)
    dice = report.summary()["membrane"]["dice"]
    assert (dice.mean, dice.median, dice.count) == (
        pytest.approx((1 + 2 / 3 + 0) / 3),
        pytest.approx(2 / 3),
        3,
    )
    assert dice.sd == pytest.approx(np.std([1, 2 / 3, 0], ddof=1))
    assert report.summary()["membrane"]["precision"].count == 2
    assert report.mean()["case_pixel_error"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.csv", "metrics.json"]


def test_the_files_say_what_the_report_says(tmp_path: Path) -> None:
    references = save(tmp_path / "r", a=HALF, gone=HALF)
    report = evaluate(save(tmp_path / "p", a=ALL), references, CELLS, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content == report.to_dict()
    assert content["cases"][0]["labels"]["membrane"]["dice"] == pytest.approx(2 / 3)
    assert content["cases"][1]["missing"] and content["cases"][1]["labels"]["membrane"]["precision"] is None
    assert Labels.from_dict(content["labels"]) == CELLS
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "metrics.csv").read_text())))
    assert [(row["case"], row["label"], row["missing"]) for row in rows] == [
        ("a", "membrane", "0"),
        ("gone", "membrane", "1"),
    ]
    assert float(rows[0]["iou"]) == 0.5 and rows[1]["precision"] == "" and rows[1]["pixel_error"] == "1.0"
    assert rows[0]["reference_voxels"] == "4" and rows[0]["predicted_voxels"] == "8"


def test_the_terminal_shows_a_table(tmp_path: Path) -> None:
    report = evaluate(save(tmp_path / "p", a=ALL, x=ALL), save(tmp_path / "r", a=HALF, gone=HALF), CELLS)
    text = io.StringIO()
    Console(file=text, width=80).print(report.table())
    for word in ("membrane", "0.3333", "0.4714", "median", "scored 0: gone", "left out: x", "2 cases"):
        assert word in text.getvalue()


def test_files_may_be_given_for_folders(tmp_path: Path) -> None:
    predictions, references = save(tmp_path / "p", a=HALF, b=ALL), save(tmp_path / "r", a=HALF, c=HALF)
    for p, r in (("a.png", "a.png"), ("b.png", "c.png"), ("a.png", "")):
        assert len(evaluate(predictions / p, references / r, CELLS).cases) == 1
    report = evaluate(predictions, references / "a.png", CELLS)
    assert report.extra == ("b",) and report.cases[0].scores(1).dice == 1


def test_labels_come_from_inference_then_the_data_set_then_the_values(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p", a=HALF)
    root = tmp_path / "data"
    save(root / "labels", a=HALF)
    assert evaluate(predictions, root / "labels").labels.foreground == ("255",)
    (root / "dataset.json").write_text(
        json.dumps({"dims": 2, "labels": {"wall": 0, "cell": 255}, "foreground": ["wall"]})
    )
    for references in (root, root / "labels", root / "labels" / "a.png"):
        assert evaluate(predictions, references).labels.foreground == ("wall",)
    (predictions / "inference.json").write_text(json.dumps({"labels": CELLS.to_dict()}))
    assert evaluate(predictions, root / "labels").labels == CELLS
    assert evaluate(predictions, root, Labels({"cell": 255})).labels.foreground == ("cell",)
    (predictions / "inference.json").write_text(json.dumps({"labels": {"values": 3}}))
    with pytest.raises(MedsegError, match=r"inference\.json: labels must be"):
        evaluate(predictions, root)


def test_a_value_that_no_reference_has(tmp_path: Path) -> None:
    with pytest.raises(
        MedsegError, match=r"p/a.png holds the undeclared label value 1: labels are background: 0, 255: 255"
    ):
        evaluate(save(tmp_path / "p", a=HALF // 255), save(tmp_path / "r", a=HALF))


def test_references_that_are_no_labels(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p", a=ALL)
    with pytest.raises(MedsegError, match="nothing but 0"):
        evaluate(predictions, save(tmp_path / "zero", a=ALL))
    (tmp_path / "many").mkdir()
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(tmp_path / "many" / "a.png")
    with pytest.raises(MedsegError, match="more than 255 values"):
        evaluate(predictions, tmp_path / "many")


def test_nothing_to_compare(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p", case1=ALL)
    with pytest.raises(MedsegError, match=r"no such file or folder"):
        evaluate(predictions, tmp_path / "nowhere", CELLS)
    with pytest.raises(MedsegError, match=r"holds no file"):
        evaluate(save(tmp_path / "empty"), predictions, CELLS)
    with pytest.raises(MedsegError, match=r"'case1' is predicted and 'case_1' is expected; did you mean 'case_1'"):
        evaluate(predictions, save(tmp_path / "r", case_1=ALL), CELLS)


def test_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    masks = save(tmp_path / "p", a=HALF)
    evaluate(masks, masks, CELLS, tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        evaluate(masks, masks, CELLS, tmp_path / "out")
    evaluate(masks, masks, CELLS, tmp_path / "out", overwrite=True)


def test_grids_that_do_not_match_are_refused(tmp_path: Path) -> None:
    mask = np.ones((3, 4, 5), np.uint8)
    for folder, spacing in (("p", 1.0), ("r", 1.2)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(mask, np.diag([spacing, 1, 1, 1])), tmp_path / folder / "a.nii.gz")
    with pytest.raises(GridError, match=r"different spacings, 1 x 1 x 1 and 1.2 x 1 x 1 mm"):
        evaluate(tmp_path / "p", tmp_path / "r", Labels({"a": 1}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_undefined_values_are_left_out_of_means() -> None:
    spread = Spread.of([1.0, math.nan, 0.0])
    assert (spread.mean, spread.count) == (0.5, 2)
    assert math.isnan(Spread.of([1.0]).sd) and math.isnan(Spread.of([math.nan]).mean)
