"""Predictions are matched by stem, scored, summed up and written."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.ndimage import binary_dilation, gaussian_filter

from medseg.datasets.case_names import digest_name
from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.facts import facts_of
from medseg.datasets.labels import Labels
from medseg.errors import GridError, MedsegError, OutputError
from medseg.evaluation.evaluate import Wanted, evaluate, score_folders
from medseg.evaluation.report import Report, Spread
from medseg.experiment import Experiment
from medseg.learned_from import mark_trained
from medseg.package import ModelCard

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


def test_references_may_have_an_ending(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p", a=HALF, b=ALL)
    references = save(tmp_path / "r", a_mask=HALF, b_mask=HALF, c_mask=HALF)
    same = save(tmp_path / "s", a=HALF, b=HALF, c=HALF)
    found, plain = (evaluate(predictions, folder, CELLS) for folder in (references, same))
    assert [case.name for case in found.cases] == ["a", "b", "c"] and found.missing == ("c",)
    assert found.summary() == plain.summary()


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
    for word in ("membrane", "0.3333", "0.4714", "median", "scored worst: gone", "in voxels", "left out: x", "2 cases"):
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
    assert (spread.q1, spread.median, spread.q3) == (0.25, 0.5, 0.75)
    assert math.isnan(Spread.of([1.0]).sd) and math.isnan(Spread.of([math.nan]).mean)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_quartiles_are_numpys(values: list[float]) -> None:
    spread = Spread.of(values)
    np.testing.assert_allclose(
        [spread.q1, spread.median, spread.q3], np.quantile(values, [0.25, 0.5, 0.75]), rtol=1e-9, atol=1e-9
    )


AORTA = Labels({"background": 0, "aorta": 1, "liver": 2, "ignore": 9})


def volume(seed: int, shape: tuple[int, int, int] = (11, 9, 6)) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return np.digitize(gaussian_filter(drawn, 1.2), [0.02, 0.2]).astype(np.uint8)


def save_nifti(
    folder: Path, spacing: tuple[float, ...] = (0.7, 0.8, 2.5), unit: str = "mm", **masks: np.ndarray
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        image = nib.Nifti1Image(mask, np.diag([*spacing, 1]))
        image.header.set_xyzt_units(xyz={"mm": "mm", "um": "micron"}[unit])
        nib.save(image, folder / f"{name}.nii")
    return folder


def test_files_of_anisotropic_scans_give_monais_distances(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    p, r = volume(1), volume(2)
    predictions, references = save_nifti(tmp_path / "p", a=p), save_nifti(tmp_path / "r", a=r)
    wanted = Wanted(metrics=["surfaces"], tolerance={"aorta": 1.0, "liver": 2.6})
    values = evaluate(predictions, references, AORTA, wanted=wanted).cases[0].values
    tensors = [torch.tensor(np.stack([mask == c for c in range(3)])[None].astype(np.float32)) for mask in (p, r)]
    spacing = {"spacing": (0.7, 0.8, 2.5)}
    theirs = {
        "hd_mm": monai.compute_hausdorff_distance(*tensors, **spacing),
        "hd95_mm": monai.compute_hausdorff_distance(*tensors, percentile=95, **spacing),
        "assd_mm": monai.compute_average_surface_distance(*tensors, symmetric=True, **spacing),
        "nsd": monai.compute_surface_dice(*tensors, [1.0, 2.6], **spacing),
    }
    for column, expected in theirs.items():
        ours = [values[label][column] for label in ("aorta", "liver")]
        np.testing.assert_allclose(ours, expected[0].numpy(), rtol=1e-5)


def test_units_are_those_of_the_files(tmp_path: Path) -> None:
    mask = volume(3)
    for unit in ("mm", "um"):
        references = save_nifti(tmp_path / unit, unit=unit, a=mask)
        other = save_nifti(tmp_path / f"{unit}-p", unit=unit, a=np.roll(mask, 1, 0))
        values = evaluate(other, references, AORTA, wanted=Wanted(metrics=["hd", "volume_difference"])).cases[0].values
        assert list(values["liver"]) == [f"volume_difference_{unit}3", f"hd_{unit}"]
        assert values["liver"][f"hd_{unit}"] >= 0.7 * (1 - 1e-6)
    flat = evaluate(save(tmp_path / "p", a=HALF), save(tmp_path / "r", a=HALF[::-1]), CELLS)
    assert flat.cases[0].values["membrane"]["hd95_voxels"] == 1
    assert {"volume_difference_voxels", "assd_voxels"} <= set(flat.columns)


EMPTIES = {
    (False, False): {"dice": 1, "sensitivity": 1, "precision": 1, "hd": 0, "hd95": 0, "assd": 0, "nsd": 1,
                     "lesion_f1": 1, "lesion_dice": 1, "lesion_sensitivity": 1, "lesion_precision": 1,
                     "volume_difference": 0},
    (True, False): {"dice": 0, "sensitivity": math.nan, "precision": 0, "hd": "worst", "hd95": "worst", "assd": "worst",
                    "nsd": 0, "lesion_f1": 0, "lesion_dice": 0, "lesion_sensitivity": math.nan, "lesion_precision": 0},
    (False, True): {"dice": 0, "sensitivity": 0, "precision": math.nan, "hd": "worst", "hd95": "worst", "assd": "worst",
                    "nsd": 0, "lesion_f1": 0, "lesion_dice": 0, "lesion_sensitivity": 0, "lesion_precision": math.nan},
    (None, True): {"dice": 0, "sensitivity": 0, "precision": math.nan, "specificity": 0, "pixel_error": 1,
                   "hd": "worst", "hd95": "worst", "assd": "worst", "nsd": 0, "lesion_f1": 0,
                   "lesion_precision": math.nan, "volume_difference": math.nan, "volume_similarity": 0},
}  # fmt: skip


@pytest.mark.parametrize("filled", EMPTIES)
def test_empty_structures_score_as_documented(tmp_path: Path, filled: tuple[bool | None, bool]) -> None:
    none, some = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)
    some[1:3, 1:3, 1] = 1
    masks = {False: none, True: some}
    references = save_nifti(tmp_path / "r", a=masks[filled[1]], z=none)
    predicted = {"z": none} if filled[0] is None else {"a": masks[filled[0]], "z": none}
    wanted = Wanted(metrics=["counts", "surfaces", "lesions"], tolerance=1)
    report = evaluate(save_nifti(tmp_path / "p", **predicted), references, AORTA, wanted=wanted)
    values = report.cases[0].values["aorta"]
    worst = math.hypot(3 * 0.7, 4 * 0.8, 2 * 2.5)
    for metric, expected in EMPTIES[filled].items():
        (column,) = (c for c in values if c == metric or c.removesuffix("_mm").removesuffix("_mm3") == metric)
        np.testing.assert_allclose(values[column], worst if expected == "worst" else expected, rtol=1e-6)


def test_what_is_ignored_changes_no_metric(tmp_path: Path) -> None:
    reference, one, other = volume(4), volume(5), volume(5)
    reference[:, 5:] = 9
    other[:, 5:] = volume(6)[:, 5:]
    references = save_nifti(tmp_path / "r", a=reference)
    wanted = Wanted(metrics=["counts", "surfaces", "lesions", "segments", "thin"], tolerance=1)
    reports = [
        evaluate(save_nifti(tmp_path / name, a=mask), references, AORTA, wanted=wanted)
        for name, mask in (("one", one), ("other", other))
    ]
    assert reports[0].rows() == reports[1].rows()


def test_instances_are_numbers_or_components(tmp_path: Path) -> None:
    numbers = np.zeros((12, 12), np.uint8)
    numbers[1:4, 1:4], numbers[1:4, 4:8], numbers[7:11, 2:9] = 1, 2, 3
    references = save(tmp_path / "r", a=numbers)
    same = evaluate(references, references, wanted=Wanted(instances=True))
    assert same.cases[0].values["instance"]["pq"] == same.cases[0].values["instance"]["ap"] == 1
    mask = evaluate(
        save(tmp_path / "m", a=(numbers > 0).astype(np.uint8) * 255), references, wanted=Wanted(instances=True)
    )
    values = mask.cases[0].values["instance"]
    assert (values["instances_tp"], values["instances_fp"], values["instances_fn"]) == (2, 0, 1)
    assert values["dice"] == 1 and values["sq"] == pytest.approx((12 / 21 + 1) / 2)
    assert "instances_tp" not in mask.summary()["instance"]
    with pytest.raises(
        MedsegError, match="instances need one foreground label and background 0; here are aorta, liver"
    ):
        evaluate(references, references, AORTA, wanted=Wanted(instances=True))
    with pytest.raises(MedsegError, match="--instances"):
        evaluate(references, references, wanted=Wanted(metrics=["pq"]))


def test_segments_are_between_the_borders_or_the_objects(tmp_path: Path) -> None:
    cells = np.full((20, 20), 255, np.uint8)
    cells[:, 9:11] = 0
    broken = cells.copy()
    broken[8:12, 9:11] = 255
    predictions, references = save(tmp_path / "p", a=broken), save(tmp_path / "r", a=cells)
    wanted = {objects: Wanted(metrics=["segments", "thin"], objects=objects) for objects in (False, True)}
    border = evaluate(predictions, references, CELLS, wanted=wanted[False]).cases[0].values["membrane"]
    cell = evaluate(predictions, references, Labels({"membrane": 0, "cell": 255}), wanted=wanted[True]).cases[0].values
    assert border == cell["cell"]
    assert border["v_rand_merge"] == pytest.approx(0.5) and border["v_rand_split"] == 1


def test_probabilities_are_found_beside_the_predictions(tmp_path: Path) -> None:
    references, predictions = save(tmp_path / "r", a=HALF, b=HALF), save(tmp_path / "p", a=HALF, b=HALF)
    with pytest.raises(MedsegError, match="probabilities does not exist"):
        evaluate(predictions, references, CELLS, wanted=Wanted(metrics=["calibration"]))
    save(predictions / "probabilities", a=255 - HALF)
    with pytest.raises(MedsegError, match="lacks the probabilities of b"):
        evaluate(predictions, references, CELLS, wanted=Wanted(metrics=["calibration"]))
    save(predictions / "probabilities", b=HALF)
    report = evaluate(predictions, references, CELLS, wanted=Wanted(probabilities=predictions / "probabilities"))
    assert [case.values["membrane"]["brier"] for case in report.cases] == [0, 1]
    assert [case.values["membrane"]["ece"] for case in report.cases] == [0, 1]


def test_options_that_are_wrong(tmp_path: Path) -> None:
    masks = save(tmp_path / "p", a=HALF)
    for wanted, message in (
        (Wanted(metrics=["dise"]), "did you mean 'dice'"),
        (Wanted(tolerance={"membran": 1}), "did you mean 'membrane'"),
        (Wanted(tolerance=-1), "distance of 0 or more"),
        (Wanted(tolerance=math.nan), "distance of 0 or more"),
        (Wanted(overlap=1), "no IoU"),
    ):
        with pytest.raises(MedsegError, match=message):
            evaluate(masks, masks, CELLS, wanted=wanted)


def test_all_predictions_on_other_grids_are_named(tmp_path: Path) -> None:
    references = save(tmp_path / "r", a=HALF, b=HALF, c=HALF)
    predictions = save(tmp_path / "p", a=HALF, b=HALF.T, c=HALF[:1])
    with pytest.raises(
        GridError, match=r"2 predictions lie on other grids than their references: b, c; the first: .*4 x 2"
    ):
        evaluate(predictions, references, CELLS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_labels_are_shown_by_their_means(tmp_path: Path) -> None:
    many = np.arange(8, dtype=np.uint8).repeat(4).reshape(8, 4)
    report = evaluate(save(tmp_path / "p", a=many), save(tmp_path / "r", a=many))
    text = io.StringIO()
    Console(file=text, width=160).print(report.table())
    assert "median" not in text.getvalue() and text.getvalue().count("1.0000") > 7 * 6


def test_large_scans_are_not_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.evaluation.families.THIN_VOXELS", 7)
    masks = save(tmp_path / "p", a=HALF)
    with pytest.raises(MedsegError, match="8 voxels, and borders are thinned in scans of up to 7"):
        evaluate(masks, masks, CELLS, wanted=Wanted(metrics=["thin"]))


@pytest.mark.parametrize("words", [("--tolerance", "2"), ("--tolerance", "membrane=2", "--metrics", "nsd, dice")])
def test_the_command_takes_tolerances_and_metrics(medseg_command, tmp_path: Path, words: tuple[str, ...]) -> None:
    masks = save(tmp_path / "p", a=HALF)
    (masks / "inference.json").write_text(json.dumps({"labels": CELLS.to_dict()}))
    out = medseg_command("--predictions", masks, "--references", masks, *words, "--json")
    assert json.loads(out)["summary"]["membrane"]["nsd"]["mean"] == 1
    assert json.loads(out)["settings"]["tolerance"] == {"membrane": 2.0}
    with pytest.raises(MedsegError, match="--tolerance two"):
        medseg_command("--predictions", masks, "--references", masks, "--tolerance", "two")


@pytest.fixture
def medseg_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*words: object) -> str:
        from medseg.cli.app import app

        app(["evaluate", *map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_membranes_of_real_neurons_score_in_order(real_data: Path, tmp_path: Path) -> None:
    labels = sorted((real_data / "isbi_em" / "labels").iterdir())[:1]
    with Image.open(labels[0]) as file:
        truth = np.asarray(file)[:256, :256]
    gaps = truth.copy()
    gaps[gaussian_filter(np.random.default_rng(0).standard_normal(truth.shape), 5) > 0.09] = 255
    wide = np.where(binary_dilation(truth == 0), 0, 255).astype(np.uint8)
    references = save(tmp_path / "r", gaps=truth, wide=truth)
    wanted = Wanted(metrics=["dice", "segments", "thin"])
    report = evaluate(save(tmp_path / "p", gaps=gaps, wide=wide), references, CELLS, wanted=wanted)
    torn, thick = (case.values["membrane"] for case in report.cases)
    assert thick["v_rand_thin"] > 0.98 > torn["v_rand_thin"]
    assert thick["v_rand"] < thick["v_rand_thin"]


MASKS = {f"case{number}": np.repeat(np.array([[0], [255], [number]], np.uint8), 4, 1) > 9 for number in range(4)}


@dataclass(frozen=True)
class Run:
    """A run's folder without a network: what an evaluation reads of it."""

    folder: Path

    @classmethod
    def write(cls, folder: Path, data: Path, train: Sequence[str], weights: str, **keys: Any) -> Run:
        card = {"medseg": "0", "network": {}, "activation": "sigmoid", "labels": CELLS.to_dict(), "preprocessing": {}}
        training = {"init_from": {"sha256": keys["began"]}} if "began" in keys else {}
        (folder / "model").mkdir(parents=True)
        model = ModelCard.model_validate({**card, "training": training, "weights_sha256": weights})
        (folder / "model" / "model.json").write_text(model.model_dump_json())
        (folder / "split.json").write_text(json.dumps({"train": list(train), "validation": ["held out"]}))
        about = {"data": {"root": str(data), **keys.get("how", {})}, "training": keys.get("training", {})}
        experiment = Experiment.model_validate({"name": "run", "network": {"name": "unet"}, **about})
        (folder / "experiment.yaml").write_text(experiment.to_yaml())
        return cls(folder)

    @property
    def package(self) -> dict[str, str]:
        card = json.loads((self.folder / "model" / "model.json").read_text())
        return {"path": str(self.folder / "model"), "weights_sha256": card["weights_sha256"]}


def infer(scans: Path, out: Path, *runs: Run, names: Mapping[str, str] | None = None) -> Path:
    """Masks of a folder of scans with the report that medseg infer leaves; ``names`` calls them otherwise."""
    rows = []
    for scan in sorted(scans.iterdir()):
        name = (names or {}).get(scan.stem, scan.stem)
        save(out, **{name: np.full((3, 4), 255, np.uint8)})
        digest = Digest.of(facts_of(scan, "image"))
        assert digest is not None
        row = {"input": name if names else str(scan), "output": str(out / f"{name}.png"), "start": "1"}
        rows.append({**row, "status": "done", "input_digest": digest.model_dump()})
    start = {"models": [run.package for run in runs]}
    (out / "report.json").write_text(json.dumps({"format": 1, "starts": {"1": start}, "scans": rows}))
    return out


def data_set(root: Path, seed: int = 0) -> Path:
    """Four images with labels; those of other seeds differ in their images, not in what they are called."""
    rng = np.random.default_rng(seed)
    save(root / "labels", **{name: mask * np.uint8(255) for name, mask in MASKS.items()})
    save(root / "images", **{name: rng.integers(0, 200, (3, 4)).astype(np.uint8) for name in MASKS})
    return root


def trained_on(predictions: Path, references: Path) -> Report:
    scored = score_folders(predictions, references / "labels", CELLS)
    return mark_trained(scored.report, scored.masks)


@given(st.sets(st.sampled_from(sorted(MASKS)), min_size=1), st.booleans())
def test_cases_that_a_model_was_trained_on_are_told_in_a_line(train: set[str], moved: bool) -> None:
    with TemporaryDirectory() as name, redirect_stderr(io.StringIO()) as said:
        root, data = Path(name), data_set(Path(name) / "data")
        run = Run.write(root / "run", data, sorted(train), "w")
        scans = Path(shutil.copytree(data, root / "copy")) if moved else data
        report = trained_on(infer(scans / "images", root / "masks", run), scans)
        report.write(root / "scores")
        rows = list(csv.DictReader((root / "scores" / "metrics.csv").read_text().splitlines()))
        kept = json.loads((root / "scores" / "metrics.json").read_text())["cases"]
    assert report.trained_on == {case: case in train for case in MASKS}
    assert said.getvalue().startswith(f"{len(train)} of 4 cases were trained on by this model: {min(train)}")
    assert "by name" not in said.getvalue() and said.getvalue().count("\n") == 1
    assert {row["case"]: row["trained_on"] for row in rows} == {case: str(int(case in train)) for case in MASKS}
    assert {case["case"]: case["trained_on"] for case in kept} == report.trained_on


def test_other_scans_that_are_called_as_training_cases_are_not_taken_for_them(tmp_path: Path, capsys: Any) -> None:
    run = Run.write(tmp_path / "run", data_set(tmp_path / "data"), ["case0", "case1"], "w")
    other = data_set(tmp_path / "other", seed=1)
    masks = infer(other / "images", tmp_path / "masks", run)
    assert trained_on(masks, other).trained_on == dict.fromkeys(MASKS, False)
    assert capsys.readouterr().err == ""
    shutil.rmtree(tmp_path / "data")
    assert sum(trained_on(masks, other).trained_on.values()) == 2
    assert "case0, case1 (2 by name alone: the files are not here to compare)" in capsys.readouterr().err


def test_training_cases_are_known_under_any_public_name(tmp_path: Path, capsys: Any) -> None:
    data = data_set(tmp_path / "data")
    digests = {name: digest_name(name) for name in MASKS}
    stems = Run.write(tmp_path / "stems", data, ["case2"], "a")
    private = Run.write(tmp_path / "digests", data, [digests["case2"]], "b", how={"case_names": "digest"})
    for run in (stems, private):
        for names in (None, digests):
            masks = infer(data / "images", tmp_path / f"{run.folder.name}-{names is None}", run, names=names)
            found = trained_on(masks, data).trained_on
            assert [name for name, trained in found.items() if trained] == [names["case2"] if names else "case2"]
    assert capsys.readouterr().err.count("by this model") == 4


def test_all_models_count_and_those_that_they_began_with(tmp_path: Path, capsys: Any) -> None:
    data = data_set(tmp_path / "data")
    first = Run.write(tmp_path / "first", data, ["case0"], "a")
    began = {"began": "a", "training": {"init_from": str(first.folder)}}
    second = Run.write(tmp_path / "second", data, ["case1"], "b", **began)
    third = Run.write(tmp_path / "third", data, ["case3"], "c")
    found = trained_on(infer(data / "images", tmp_path / "masks", second, third), data).trained_on
    assert [name for name, trained in found.items() if trained] == ["case0", "case1", "case3"]
    assert "3 of 4 cases were trained on by one of these models: case0, case1, case3" in capsys.readouterr().err
    for path in (first.folder / "model" / "model.json", third.folder / "model" / "model.json"):
        path.write_text(path.read_text().replace('"weights_sha256":"', '"weights_sha256":"retrained '))
    alone = trained_on(infer(data / "images", tmp_path / "alone", second), data)
    assert [name for name, trained in alone.trained_on.items() if trained] == ["case1"]


def test_nothing_is_told_of_models_that_are_not_known(tmp_path: Path, capsys: Any) -> None:
    data = data_set(tmp_path / "data")
    run = Run.write(tmp_path / "run", data, ["case0"], "a")
    masks = infer(data / "images", tmp_path / "masks", run)
    card = run.folder / "model" / "model.json"
    card.write_text(card.read_text().replace('"weights_sha256":"a"', '"weights_sha256":"b"'))
    for damage in (None, "{}", "no JSON", '{"starts": 3}'):
        if damage is not None:
            (masks / "report.json").write_text(damage)
        report = trained_on(masks, data)
        assert report.trained_on == {} and "trained_on" not in report.rows()[0]
    (run.folder / "split.json").write_text('{"train": 3}')
    assert trained_on(infer(data / "images", tmp_path / "again", run), data).trained_on == {}
    assert capsys.readouterr().err == ""
