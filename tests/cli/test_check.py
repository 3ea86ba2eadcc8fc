"""``medseg check``: a table, a report, and an exit code; and the same checks before the first step of training."""

import json
import shutil

import numpy as np
import pytest
import tifffile


@pytest.fixture
def broken(data_set, tmp_path):
    """The tiny set with an undeclared value, an image that is cut short, and a label without foreground."""
    root = tmp_path / "broken"
    shutil.copytree(data_set, root)
    (root / "images" / "case1.tif").write_bytes((root / "images" / "case1.tif").read_bytes()[:300])
    label = tifffile.imread(root / "labels" / "case2.tif")
    label[3, 4] = 9
    tifffile.imwrite(root / "labels" / "case2.tif", label)
    tifffile.imwrite(root / "labels" / "case3.tif", np.zeros_like(label))
    return root


def test_a_clean_set_exits_with_0(medseg, data_set, tmp_path):
    code, out, err = medseg("check", data_set, "-o", tmp_path / "out")
    assert code == 0, err
    assert "nothing was found wrong" in out and "4 cases, 4 with image and label" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check.json", "check.html"}
    assert "Nothing was found wrong" in (tmp_path / "out" / "check.html").read_text()


def test_errors_exit_with_2_name_their_cases_and_are_summed_up(medseg, broken):
    code, out, err = medseg("check", broken)
    assert code == 2
    assert "case1" in out and "case2" in out and "case3" not in out
    assert err.strip().splitlines()[-1].startswith("error: data set cells: 2 errors in 2 of 4 cases: case1: ")
    _, out, _ = medseg("check", broken, "--verbose")
    assert "case3" in out


def test_json_is_the_report(medseg, broken, tmp_path):
    code, out, _ = medseg("check", broken, "--json", "-o", tmp_path / "out", "--workers", "1", "--fresh")
    assert code == 2
    content = json.loads(out)
    assert content == json.loads((tmp_path / "out" / "check.json").read_text())
    found = {(f["severity"], f["check"], f["case"]) for f in content["findings"]}
    assert found == {
        ("error", "unreadable", "case1"),
        ("error", "undeclared", "case2"),
        ("warning", "empty_label", "case3"),
    }
    assert not [f for f in content["findings"] if str(broken) in json.dumps(f)]


def test_a_report_is_not_replaced_unasked(medseg, refused, data_set, tmp_path):
    assert medseg("check", data_set, "-o", tmp_path)[0] == 0
    assert "--overwrite" in refused("check", data_set, "-o", tmp_path)
    assert medseg("check", data_set, "-o", tmp_path, "--overwrite")[0] == 0


def test_of_a_config_its_data_count(medseg, refused, config, data_set):
    keys = [f"data.root={data_set}"]
    assert medseg("check", config, *keys)[0] == 0
    assert "undeclared label value 255" in refused("check", config, *keys, "data.labels={background: 0, cell: 1}")
    assert "2 axes" in refused("check", config, *keys, "network.dims=3")
    leak = ["data.train=[case0, case1]", "data.validation=[case1]"]
    assert "case1: the case is in train, validation of the config" in refused("check", config, *keys, *leak)
    assert medseg("check", config, *keys, "data.exclude=[case1]", "--json")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["DATA", "data.root=x"], "keys are laid over a config"),
        (["nowhere.yaml"], "does not exist"),
    ],
)
def test_what_is_no_data_set(refused, data_set, words, message):
    assert message in refused("check", *[data_set if word == "DATA" else word for word in words])


def test_training_refuses_what_check_calls_an_error_before_its_first_step(refused, config, keys, data_set, tmp_path):
    root = tmp_path / "leak"
    shutil.copytree(data_set, root)
    for kind in ("images", "labels"):
        shutil.copy(root / kind / "case0.tif", root / kind / "case1.tif")
    message = refused("train", config, *keys, f"data.root={root}", "-o", tmp_path / "run")
    assert "case0 and case1: 2 images and labels are the same byte for byte" in message
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_training_leaves_out_what_is_excluded(medseg, config, keys, broken, tmp_path):
    left = [f"data.root={broken}", "data.exclude=[case1, case2]"]
    code, _, err = medseg("train", config, *keys, *left, "data.validation=[case0]", "-o", tmp_path / "run")
    assert code == 0, err
    assert "labels without foreground: 1 case" in err and "case3" not in err.split("labels without")[1].split("\n")[0]
