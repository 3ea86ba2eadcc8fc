"""What a run says of itself, what its table shows, and what it saw of the machine."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.datasets.labels import Labels
from medseg.evaluation.case import CaseResult
from medseg.evaluation.report import Report
from medseg.tracking import machine
from medseg.tracking.courier import _linked
from medseg.tracking.describe import GAP, describe, facts_of, question_of, shares
from medseg.tracking.picture_files import THUMBNAIL, picture_files
from medseg.tracking.view import view


@pytest.fixture
def report() -> Report:
    labels = Labels.from_dict({"values": {"background": 0, "liver|x": 1}, "foreground": ["liver|x"]})
    cases = [CaseResult(f"c{i}", None, {"liver|x": {"dice": value}}, {}) for i, value in enumerate((0.5, 0.7))]
    return Report(labels, tuple(cases))


def test_a_description_has_the_figures_and_leads_to_the_files(report: Report) -> None:
    text = describe(report, {"network": "a*b"}, {"cases/worst": "images/w+1.png"}, "report.html")
    assert "**dice 0.6**, mean of 2 cases · [all cases](page:report.html)" in text
    assert f"| liver\\|x{GAP} | 0.6 ± 0.14 |" in text and "- network: a\\*b" in text
    linked = _linked(text, "7", "r1")
    assert "(get-artifact?path=images/w%2B1.png&run_uuid=r1)" in linked
    assert "(#/experiments/7/runs/r1/artifacts/report.html)" in linked


def test_time_is_shared_out() -> None:
    assert shares({"waiting": 30.0, "validation": 60.0, "logging": 0.1}, 100.0) == "100 s: 60% validation, 30% waiting"
    assert shares({}, 7200.0) == "2.0 h"


def test_an_experiment_is_a_data_set_and_a_question() -> None:
    assert question_of("liver", ["a", "b", "c", "d"]) == "liver: a, b, c and 1 more"
    assert facts_of({"a": "b"}) == "- a: b"


def test_the_view_is_columns_by_kind() -> None:
    content = json.loads(view())
    assert "metrics.`best/dice`" in content["selectedColumns"] and content["orderByAsc"] is False


@pytest.mark.parametrize("shape", [(400, 10), (3, 700, 3), (20, 20, 3), (900, 800)])
def test_a_picture_has_a_small_copy_of_the_same_number(shape: tuple[int, ...]) -> None:
    import io

    from PIL import Image

    whole, small = picture_files(np.zeros(shape, np.uint8), "overlay/c 0", 7).items()
    assert small[0] == whole[0].removesuffix(".png") + "+compressed.webp"
    assert whole[0].startswith("images/overlay~c 0+step+7+timestamp+")
    assert Image.open(io.BytesIO(whole[1])).size == shape[1::-1]
    least, most = THUMBNAIL
    assert max(Image.open(io.BytesIO(small[1])).size) == min(max(*shape[:2], least), most)


def test_the_machine_is_watched_while_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, float], int]] = []
    with machine.watched(lambda values, number: seen.append((values, number)), first=5):
        pass
    ((values, number),) = seen
    assert number == 5 and 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert all(name.startswith(machine.PREFIX) for name in values)
