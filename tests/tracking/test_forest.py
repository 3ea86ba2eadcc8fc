"""What a comparison leaves behind: files that say the same, a picture, an MLflow run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import OutputError
from medseg.evaluation.comparison import Asked, Comparison, compare
from medseg.evaluation.score_table import Measure, ScoreTable
from medseg.tracking import Store, forest
from medseg.tracking.comparison import (
    CASES,
    CSV,
    FILES,
    JSON,
    MARKDOWN,
    PICTURE,
    begin_run,
    log_comparison,
    write_comparison,
)
from medseg.tracking.forest import plot_forest
from medseg.tracking.pictures import PALETTE

BLUE, ORANGE = PALETTE[4], PALETTE[6]


def comparison(shift: float = 0.1, labels: int = 2, names: str = "ab", cases: int = 9) -> Comparison:
    """Of «dice», in which each is ``shift`` better than the one before it."""
    rng = np.random.default_rng(0)
    measure = Measure("dice", "dice", "higher")
    tables = []
    for place, name in enumerate(names):
        columns = {("dice", f"l{i}|"): rng.normal(0.5 + place * shift, 0.01, cases) for i in range(labels)}
        values = {key: {f"c{i}": float(v) for i, v in enumerate(column)} for key, column in columns.items()}
        tables.append(ScoreTable(name, tuple(f"c{i}" for i in range(cases)), {"dice": measure}, values))
    return compare(tables, Asked(resamples=99))


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return set(picture.convert("RGB").getdata())


def test_all_files_say_the_same(tmp_path: Path) -> None:
    found = comparison()
    write_comparison(found, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(FILES)
    rows = list(csv.DictReader((tmp_path / "out" / CSV).open()))
    content = json.loads((tmp_path / "out" / JSON).read_text())
    assert len(rows) == len(content["rows"]) == 2 and content["comparisons"] == 2
    for row, same, contrast in zip(rows, content["rows"], found.contrasts, strict=True):
        assert float(row["difference"]) == same["difference"] == contrast.paired.mean
        assert float(row["p_holm"]) == same["p_holm"] == contrast.p_holm and row["claim"] == same["claim"] == "better"
        assert same["differ_most"][0]["case"] == contrast.differ_most(1)[0][0]
    cases = list(csv.DictReader((tmp_path / "out" / CASES).open()))
    assert len(cases) == 18
    assert float(cases[3]["second_value"]) - float(cases[3]["first_value"]) == pytest.approx(
        float(cases[3]["difference"])
    )
    text = (tmp_path / "out" / MARKDOWN).read_text()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "b is better in dice" in text and "l0\\|" in tables[2]
    assert len({line.replace("\\|", "").count("|") for line in tables[:4]}) == 1, "a bar in a name is no cell"


def test_a_comparison_is_not_overwritten_unasked(tmp_path: Path) -> None:
    write_comparison(comparison(0.1), tmp_path / "out")
    before = (tmp_path / "out" / JSON).read_bytes()
    with pytest.raises(OutputError, match="exists: choose another folder, or replace it with --overwrite"):
        write_comparison(comparison(0.2), tmp_path / "out")
    assert (tmp_path / "out" / JSON).read_bytes() == before
    write_comparison(comparison(0.2), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / JSON).read_bytes() != before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_comparison(comparison(), tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        write_comparison(comparison(), tmp_path / "file" / "below")


def test_the_same_scores_leave_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_comparison(comparison(), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_claims_have_their_colours(tmp_path: Path) -> None:
    grey = (130, 130, 130)
    for shift, cases, there, missing in ((0.1, 9, BLUE, ORANGE), (-0.1, 9, ORANGE, BLUE), (0.1, 5, grey, BLUE)):
        plot_forest(comparison(shift, cases=cases), tmp_path / PICTURE)
        assert there in colours(tmp_path / PICTURE) and missing not in colours(tmp_path / PICTURE)


def test_the_picture_grows_with_its_rows_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "MOST_ROWS", 5)
    heights = []
    for labels in (2, 5, 9):
        plot_forest(comparison(labels=labels, cases=4), tmp_path / PICTURE)
        with Image.open(tmp_path / PICTURE) as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1] == heights[2]


def test_the_run_in_mlflow_holds_what_was_found(store: Store, tmp_path: Path) -> None:
    found = comparison(names="abc")
    write_comparison(found, tmp_path / "out")
    with begin_run(found, store, "compared") as run:
        log_comparison(found, run, tmp_path / "out")
    kept = store.client().get_run(run.id)
    assert kept.info.run_name == "2 models against a" and kept.data.tags["compared"] == "a, b, c"
    assert kept.data.tags["compared.2.name"] == "b" and kept.data.params["comparisons"] == "4"
    assert kept.data.metrics["claims"] == 4
    assert kept.data.metrics["difference/dice/l0_/c against a"] == pytest.approx(found.contrasts[2].paired.mean)
    assert (
        "**2 models" not in kept.data.tags["mlflow.note.content"]
        and "c is better" in kept.data.tags["mlflow.note.content"]
    )
    files = {file.path for file in store.client().list_artifacts(run.id)}
    assert set(FILES) <= files and "tables" in files
