"""Charts of runs, and a case as one picture: for whatever there is to show, in the right place and aspect."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.segmentation import find_boundaries

from medseg.datasets.labels import Labels
from medseg.evaluation.case import CaseResult
from medseg.evaluation.metrics import Counts
from medseg.evaluation.report import Report
from medseg.tracking.charts import confusion_chart, curves_chart, read_curves, strips_chart
from medseg.tracking.html.parts import Grey, Part
from medseg.tracking.html.ranking import Ranked
from medseg.tracking.html.shown import ShownCase
from medseg.tracking.pictures import ERRORS
from medseg.tracking.planes import CAPTION, COLUMNS, LEAST_WIDTH, MARGIN, OUTLINES, case_picture, outline
from medseg.training.curves import Curves

NAMES = ("liver", r"a$b_{$", "<x>", "ΔΩ")


def report_of(values: list[list[float]]) -> Report:
    """A case a row, a label a column."""
    labels = Labels({"background": 0, **{name: i for i, name in enumerate(NAMES, 1)}})
    cases = [{name: {"dice": v} for name, v in zip(NAMES, row, strict=True)} for row in values]
    return Report(labels, tuple(CaseResult(str(i), None, case, {}) for i, case in enumerate(cases)))


def same(first: object, second: object) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("values", [[], [[0.5] * 4], [[math.nan] * 4] * 3, [[0.1, 0.9, math.nan, 1.0]] * 5])
def test_every_evaluation_has_strips(values: list[list[float]]) -> None:
    """Names may hold what matplotlib would take for a formula; values may be undefined."""
    picture = strips_chart(report_of(values), "dice")
    assert picture.mode == "RGB" and min(picture.size) > 100
    assert same(picture, strips_chart(report_of(values), "dice"))


def test_strips_show_values() -> None:
    values = [[0.2, 0.5, 0.6, 0.9], [0.3, 0.4, 0.7, 0.8]]
    assert not same(strips_chart(report_of(values), "dice"), strips_chart(report_of(values[::-1][:1] * 2), "dice"))


def test_curves_are_those_of_the_run(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "metrics.csv", ["train/loss", "lr", "val/dice/a$"], 0)
    for step in range(1, 6):
        curves.add(step, {"train/loss": 1 / step, "lr": 0.1} | ({"val/dice/a$": step / 9} if step % 2 else {}))
    rows = read_curves(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row.get("val/dice/a$") for row in rows] == [
        pytest.approx(1 / 9, abs=1e-5),
        None,
        pytest.approx(3 / 9, abs=1e-5),
        None,
        pytest.approx(5 / 9, abs=1e-5),
    ]
    picture = curves_chart(rows)
    assert picture is not None and not same(picture, curves_chart(rows[:3]))
    assert curves_chart([]) is None and curves_chart([{"step": 1.0}]) is None


@pytest.mark.parametrize("classes", [1, 4, 20])
def test_the_diagonal_of_a_right_prediction_is_dark(classes: int) -> None:
    names = [f"label {i}" for i in range(classes + 1)]
    right = np.asarray(confusion_chart(Counts(np.eye(classes + 1, dtype=np.int64) * 9), names).convert("L"), float)
    wrong = np.asarray(
        confusion_chart(Counts(np.eye(classes + 1, dtype=np.int64)[::-1] * 9), names).convert("L"), float
    )
    darker = right < wrong - 100
    rows, columns = np.nonzero(darker)
    assert rows.size and np.corrcoef(rows, columns)[0, 1] > 0.7, "from the upper left to the lower right"


def test_a_label_that_no_reference_has_is_a_row_of_dashes() -> None:
    assert confusion_chart(Counts(np.array([[5, 0], [0, 0]])), ["background", "a"]).width > 100


# One case as one picture


@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_outlines_are_the_inner_borders(classes: np.ndarray) -> None:
    assert np.array_equal(outline(classes), find_boundaries(classes, connectivity=1, mode="inner", background=0))


def case(shape: tuple[int, ...], spacing: tuple[float, ...], anatomical: bool, predicted: bool = True) -> ShownCase:
    """A cube of a label, and a prediction that is moved by a voxel along x."""
    reference = np.zeros(shape, np.uint8)
    reference[shape[0] // 3 : -shape[0] // 3 or None, 2:-2, 2:-3] = 1
    found = np.roll(reference, 1, 2) if predicted else None
    image = Grey.of((reference * 100)[None])
    part = Part("whole", image, reference, found, spacing, (0, 0, 0), (1, 1, 1))
    return ShownCase(Ranked("a", 0, 1, 0.5), [part], anatomical, ())


@settings(max_examples=15)
@given(st.tuples(*[st.integers(6, 14)] * 3), st.tuples(*[st.sampled_from([1.0, 2.0, 3.0])] * 3), st.booleans())
def test_three_planes_stand_below_each_other_in_the_right_aspect(
    shape: tuple[int, ...], spacing: tuple[float, ...], anatomical: bool
) -> None:
    picture = np.asarray(case_picture(case(shape, spacing, anatomical), 2))
    red = (picture == OUTLINES["prediction"]).all(-1)
    blue = (picture == OUTLINES["reference"]).all(-1)
    assert red.any() and blue.any()
    panels = picture.shape[0] - 2 * CAPTION - 3 * CAPTION
    sides = [n * s for n, s in zip(shape, spacing, strict=True)]
    least = (min(spacing[1:]), min(spacing[0], spacing[2]), min(spacing[:2]))
    heights = [sides[1] / least[0], sides[0] / least[1], sides[0] / least[2]]
    assert panels >= sum(heights) * 0.9, "no voxel is smaller than a pixel"


def test_a_plane_is_as_wide_and_high_as_its_voxels_say() -> None:
    """Of 10 x 20 voxels of 3 x 1 mm: 30 to 20, enlarged by a whole number."""
    picture = case_picture(case((1, 10, 20), (1.0, 3.0, 1.0), False), 2)
    height = picture.height - 3 * CAPTION
    width = picture.width / len(COLUMNS) - MARGIN
    assert height % 30 == 0 and width == max(height * 20 / 30, LEAST_WIDTH)


def test_errors_are_where_prediction_and_reference_differ() -> None:
    shown = case((1, 20, 24), (1.0, 1.0, 1.0), False)
    picture = np.asarray(case_picture(shown, 2))
    scale = (picture.shape[0] - 3 * CAPTION) // 20
    left, top = 2 * picture.shape[1] // len(COLUMNS), 2 * CAPTION
    panel = picture[top : top + 20 * scale, left : left + 24 * scale][scale // 2 :: scale, scale // 2 :: scale]
    part = shown.parts[0]
    assert part.prediction is not None
    missed, excess = part.reference[0] > part.prediction[0], part.reference[0] < part.prediction[0]
    assert np.array_equal((panel == ERRORS["false negative"]).all(-1), missed)
    assert np.array_equal((panel == ERRORS["false positive"]).all(-1), excess)


def test_the_head_is_above() -> None:
    """In the coronal plane of a patient, where z runs to the head, the last z is the first row."""
    volume = np.zeros((6, 6, 6), np.uint8)
    volume[5] = 1
    part = Part("whole", Grey.of((volume * 200)[None]), volume, volume, (1.0,) * 3, (0, 0, 0), (1, 1, 1))
    for anatomical, bright in ((True, "top"), (False, "bottom")):
        picture = np.asarray(
            case_picture(ShownCase(Ranked("a", 0, 1, 1.0), [part], anatomical, ()), 2).convert("L"), float
        )
        side = (picture.shape[0] - 5 * CAPTION) // 3
        coronal = picture[CAPTION + side + 2 * CAPTION :][:side, :side]
        halves = {"top": coronal[: side // 3].mean(), "bottom": coronal[-side // 3 :].mean()}
        assert max(halves, key=lambda half: halves[half]) == bright


def test_a_case_without_a_prediction_or_an_image_has_a_picture() -> None:
    shown = case((6, 8, 9), (1.0, 1.0, 1.0), True, predicted=False)
    picture = np.asarray(case_picture(shown, 2))
    legend = picture[-CAPTION:]
    assert (legend == OUTLINES["prediction"]).all(-1).any()
    assert not (picture[:-CAPTION] == OUTLINES["prediction"]).all(-1).any()
    bare = Part("whole", None, shown.parts[0].reference, None, (1.0,) * 3, (0, 0, 0), (1, 1, 1))
    assert case_picture(ShownCase(shown.ranked, [bare], True, ()), 2).size[0] > 3 * LEAST_WIDTH
