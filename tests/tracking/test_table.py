import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.tracking.table import Column, as_csv, as_json, as_markdown
from medseg.tracking.tradeoff import Point, pareto_front, plot_tradeoff

COLUMNS = (
    Column("name", "{}", ("name",)),
    Column("Dice", "{:.2f}", ("dice", "sd"), " ± "),
    Column("by size", "{:.1f}", ("a", "b", "c")),
)
NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"name": st.text('ab|,"\n ', min_size=1), **dict.fromkeys(["dice", "sd", "a", "b", "c"], NUMBERS)}
    ),
    max_size=4,
)


def gone(value):
    return value is None or (isinstance(value, float) and math.isnan(value))


@given(ROWS)
def test_csv_and_json_give_back_what_was_written(rows):
    read = list(csv.DictReader(io.StringIO(as_csv(rows, COLUMNS), newline="")))
    for row, again in zip(rows, read, strict=True):
        assert again.pop("name") == row["name"]
        assert {k: v for k, v in again.items() if v} == {k: str(row[k]) for k in again if not gone(row[k])}
    content = json.loads(as_json(rows, {"title": "x"}))
    assert content["title"] == "x"
    assert content["rows"] == [{k: None if gone(v) else v for k, v in row.items()} for row in rows]


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ({"dice": 0.5, "sd": 0.25}, "0.50 ± 0.25"),
        ({"dice": 0.5, "sd": None}, "0.50"),
        ({"dice": math.nan, "sd": math.nan}, "-"),
        ({"dice": None, "sd": 0.25}, "- ± 0.25"),
        ({}, "-"),
    ],
)
def test_a_cell_leaves_out_the_last_values_that_are_not_known(values, cell):
    assert COLUMNS[1].cell(values) == cell


def test_markdown_has_a_line_a_row_and_escapes_its_bars():
    lines = as_markdown([{"name": "a|b", "dice": 1.0}], COLUMNS).splitlines()
    assert len(lines) == 3
    assert lines[0] == "| name | Dice | by size |"
    assert lines[2] == "| a\\|b | 1.00 | - |"


POINTS = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=12)


@given(POINTS)
def test_the_pareto_front_is_what_nothing_beats(points):
    def beaten(one):
        return any(c <= one[0] and q >= one[1] and (c, q) != one for c, q in points)

    front = pareto_front(points)
    assert sorted(front) == [i for i, point in enumerate(points) if not beaten(point)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


def test_the_plot_is_a_picture_of_its_panels(tmp_path):
    from PIL import Image

    points = [Point(f"network {i}", 0.5 + i / 40, 0.01, (10.0**i, 2.0 + i)) for i in range(5)]
    for costs in (("FLOPs",), ("FLOPs", "seconds")):
        cut = [Point(p.name, p.quality, p.spread, p.costs[: len(costs)]) for p in points]
        plot_tradeoff(cut, "Dice", costs, "a title", tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as picture:
            assert picture.width > picture.height * 0.9 * len(costs)
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]
