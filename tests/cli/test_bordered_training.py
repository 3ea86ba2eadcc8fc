"""Touching objects that label files number, learned as three classes, from folders called images/ and masks/."""

import json

import numpy as np
import pytest
import tifffile

from medseg import open_scan
from medseg.geometry import Box
from medseg.package import read_card

BORDERED = ["data.labels={background: 0, cell: 1}", "data.instances=true", "data.border={width: 1}"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Three images of 40 x 48 in which square cells touch, numbered."""
    root = tmp_path_factory.mktemp("data") / "cells"
    rng = np.random.default_rng(0)
    for n in range(3):
        numbers = rng.permutation(31)[:30].reshape(5, 6).repeat(8, 0).repeat(8, 1).astype(np.uint16)
        for kind, voxels in (("images", numbers * 7 % 251), ("masks", numbers)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / kind / f"c{n}.tif", voxels.astype(np.uint16))
    return root


def test_borders_are_learned_scored_and_written(medseg, config, keys, cells, tmp_path):
    run = tmp_path / "run"
    words = [*keys, f"data.root={cells}", *BORDERED, "loss.name=dice_ce", "tracking.review=true"]
    code, _, said = medseg("train", config, *words, "-o", run)
    assert code == 0, said
    assert "it has images/ and masks/" in said
    assert "not looked at again" not in said
    labels = read_card(run / "model").labels
    assert labels["values"] == {"background": 0, "cell": 1, "border": 2}
    assert not labels["instances"]
    summary = json.loads((run / "validation" / "metrics.json").read_text())["summary"]
    assert set(summary) == {"cell", "border"}
    for given in ([run], ["--predictions", run / "validation", "--references", cells / "masks", "--predicted-only"]):
        code, out, said = medseg("evaluate", *given, "--json")
        assert code == 0, said
        assert json.loads(out)["summary"] == summary
    assert medseg("infer", "-m", run / "model", cells / "images" / "c0.tif", "-o", tmp_path / "masks")[0] == 0
    mask = open_scan(tmp_path / "masks" / "c0.tif")
    assert set(np.unique(mask.read(Box.of(mask.shape)))) <= {0, 1, 2}


def test_a_border_needs_instances_and_a_name_of_its_own(refused, config, keys, cells):
    said = refused("prepare", config, *keys, f"data.root={cells}", *BORDERED, "data.instances=false")
    assert "data.instances: true" in said
    assert "border.width" in refused("prepare", config, *keys, f"data.root={cells}", *BORDERED, "data.border={}")
    said = refused("prepare", config, *keys, f"data.root={cells}", *BORDERED, "data.border={width: 1, name: cell}")
    assert "another name" in said
    assert "3 numbers" in refused(
        "prepare", config, *keys, f"data.root={cells}", *BORDERED, "data.border.width=[1,1,1]"
    )
