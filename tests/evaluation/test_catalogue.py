"""Metrics are chosen by name and family, and their columns say their unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.evaluation.catalogue import DEFAULT, FAMILIES, METRICS, choose, of_family

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def names(*arguments):
    return [metric.name for metric in choose(*arguments)]


def test_the_usual_metrics_and_those_of_the_options():
    assert names(None, [], False) == list(DEFAULT)
    assert names(None, [], True) == [*DEFAULT, "nsd"]
    assert set(names(None, ["instances"], False)) == {*DEFAULT, *of_family("instances")}
    assert names(["surfaces"], [], False) == ["hd", "hd95", "assd"]
    assert names(["surfaces"], [], True) == ["hd", "hd95", "assd", "nsd"]


def test_the_order_is_the_catalogues_whatever_was_asked():
    assert names(["hd95", "dice", "lesions"], ["calibration"], False) == ["dice", "hd95", *of_family("lesions")]


def test_names_that_are_none():
    with pytest.raises(MedsegError, match="no metric is called 'hd59'; did you mean 'hd95'"):
        choose(["hd59"], [], False)
    with pytest.raises(MedsegError, match="nsd needs a tolerance"):
        choose(["nsd"], [], False)


def test_columns_name_their_unit():
    assert METRICS["hd95"].column("mm", 3) == "hd95_mm"
    assert METRICS["assd"].column("voxels", 2) == "assd_voxels"
    assert METRICS["volume_difference"].column("um", 3) == "volume_difference_um3"
    assert METRICS["volume_difference"].column("mm", 2) == "volume_difference_mm2"
    assert METRICS["volume_difference"].column("voxels", 3) == "volume_difference_voxels"
    assert METRICS["dice"].column("mm", 3) == "dice"


def test_the_documentation_defines_every_metric():
    text = DOCS.read_text()
    missing = [name for name in (*METRICS, *FAMILIES) if f"`{name}`" not in text]
    assert not missing
