"""From other tools' layouts to scores: channels in files of their own, regions, tables of cases."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medseg.package import read_card

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
KEYS = ["network.dims=3", "training.window=[18]", "loss.name=dice_bce", "augmentation=[]"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """nnU-Net's raw format: four cases of two channels, three nested balls."""
    root = tmp_path_factory.mktemp("raw") / "Dataset001_Balls"
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    index = np.stack(np.meshgrid(*map(np.arange, (16, 14, 15)), indexing="ij"), -1)
    for case in range(4):
        apart = np.linalg.norm(index - rng.uniform(6, 9, 3), axis=-1)
        label = sum((apart < radius).astype(np.uint8) for radius in (6, 4, 2))
        affine = np.diag([-1.0, -1.0, 2.0, 1.0])
        for channel, image in enumerate((label > 0, label > 1)):
            noisy = (image * 100 + rng.normal(0, 20, label.shape)).astype(np.float32)
            nib.save(nib.Nifti1Image(noisy, affine), root / "imagesTr" / f"ball_{case}_{channel:04d}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), root / "labelsTr" / f"ball_{case}.nii.gz")
    about = {"channel_names": {"0": "T1", "1": "T2"}, "labels": REGIONS, "regions_class_order": [1, 2, 3]}
    (root / "dataset.json").write_text(json.dumps({**about, "numTraining": 4, "file_ending": ".nii.gz"}))
    return root


@pytest.fixture
def without_root(keys):
    return [*(key for key in keys if not key.startswith("data.root")), *KEYS]


def test_nnunet_s_regions_from_the_data_set_to_the_scores(medseg, config, without_root, raw, tmp_path):
    run, masks = tmp_path / "run", tmp_path / "masks"
    code, _, err = medseg("train", config, f"data.root={raw}", *without_root, "-o", run)
    assert code == 0, err
    assert "nnunet layout (dataset.json has channel_names), 4 cases of 2 files each" in err
    card = read_card(run / "model")
    assert (card.network["in_channels"], card.network["out_channels"]) == (2, 3)
    assert card.channel_files is not None and card.channel_files.suffixes == ["_0000", "_0001"]

    code, _, err = medseg("infer", "-m", run, raw / "imagesTr", "-o", masks, "--probabilities")
    assert code == 0, err
    assert sorted(path.name for path in masks.glob("*.nii.gz")) == [f"ball_{n}.nii.gz" for n in range(4)]
    shares = nib.load(masks / "probabilities" / "ball_0.nii.gz").get_fdata()
    written = np.zeros(shares.shape[:3])
    for channel, value in enumerate([1, 2, 3]):
        written[shares[..., channel] >= 0.5] = value
    mask = nib.load(masks / "ball_0.nii.gz")
    near = (np.abs(shares - 0.5) < 1e-3).any(-1)  # stored as float16
    np.testing.assert_array_equal(mask.get_fdata()[~near], written[~near])
    np.testing.assert_allclose(mask.affine, nib.load(raw / "labelsTr" / "ball_0.nii.gz").affine)

    code, _, err = medseg("evaluate", "--predictions", masks, "--references", raw, "-o", tmp_path / "scores")
    assert code == 0, err
    with (tmp_path / "scores" / "metrics.csv").open() as table:
        dice = {(row["case"], row["label"]): float(row["dice"]) for row in csv.DictReader(table)}
    expected = nib.load(raw / "labelsTr" / "ball_0.nii.gz").get_fdata()
    for name, least in (("whole", 1), ("core", 2), ("enhancing", 3)):
        a, b = mask.get_fdata() >= least, expected >= least
        assert dice["ball_0", name] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_softmax_is_no_loss_for_regions(refused, config, without_root, raw, tmp_path):
    said = refused("train", config, f"data.root={raw}", *without_root, "loss.name=dice_ce", "-o", tmp_path / "run")
    assert "the regions whole, core, enhancing overlap" in said


def test_a_channel_that_is_missing_is_named(medseg, refused, config, without_root, raw, tmp_path):
    assert medseg("train", config, f"data.root={raw}", *without_root, "-o", tmp_path / "run")[0] == 0
    alone = tmp_path / "alone" / "x_0000.nii.gz"
    alone.parent.mkdir()
    alone.write_bytes((raw / "imagesTr" / "ball_0_0000.nii.gz").read_bytes())
    assert "channel x_0001.nii.gz is missing" in refused("infer", "-m", tmp_path / "run", alone, "-o", tmp_path / "out")


def test_a_table_names_channels_patients_and_merged_labels(medseg, config, without_root, raw, tmp_path):
    rows = [
        f"c{n},imagesTr/ball_{n}_0000.nii.gz,imagesTr/ball_{n}_0001.nii.gz,labelsTr/ball_{n}.nii.gz,P{n // 2}"
        for n in range(4)
    ]
    (raw / "cases.csv").write_text("\n".join(["case,image_t1,image_t2,label,patient", *rows]))
    labels = "data.labels={background: [0, 1], core: [2, 3]}"
    run = tmp_path / "run"
    code, _, err = medseg("train", config, f"data.root={raw / 'cases.csv'}", labels, *without_root, "-o", run)
    assert code == 0, err
    assert read_card(run / "model").label_map.decode(np.array([0, 1])).tolist() == [0, 2]
    split = json.loads((run / "split.json").read_text())
    assert sorted(split["validation"]) in (["c0", "c1"], ["c2", "c3"])
