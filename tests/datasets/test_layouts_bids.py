"""BIDS: which label is whose is told by the entities of their names, and refused where they leave it open."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.check import check_grid, open_case_label, open_image
from medseg.datasets.layouts import open_dataset, recognise
from medseg.datasets.layouts.dataset import DataSet
from medseg.errors import ConfigError, MedsegError
from medseg.geometry import Box

MANUAL = "derivatives/manual"
TABLE = "index\tname\tcolor\n1\tGray Matter\t#ff53bb\n2\tLesion\tred\n"


def lay(root: Path, *files: str, version: str | None = "1.8.0", table: str | None = None) -> Path:
    """Empty files, as «sub-01/ses-1/anat/T1w» for sub-01_ses-1_T1w.nii.gz there: names alone tell a layout."""
    for text in files:
        *folders, rest = text.split("/")
        stem = "_".join([f for f in folders if f.startswith(("sub-", "ses-"))] + [rest])
        path = root.joinpath(*folders, stem if "." in rest else f"{stem}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if version is not None:
        (root / "dataset_description.json").write_text(json.dumps({"Name": "Brains", "BIDSVersion": version}))
    if table is not None:
        (root / MANUAL / "dseg.tsv").write_text(table)
    return root


def write(path: Path, voxels: np.ndarray, shift: float = 0.0) -> Path:
    affine = np.eye(4)
    affine[0, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def pairs(found: DataSet) -> dict[str, tuple[list[str], str | None]]:
    """By case: what its images and its label are called."""
    return {
        case.name: ([path.name.split(".")[0] for path in case.images], case.label and case.label.name.split(".")[0])
        for case in found.cases
    }


def info_of(found: DataSet) -> Any:
    assert found.info is not None
    return found.info


def test_contrasts_that_every_label_has_are_the_channels(tmp_path: Path) -> None:
    anat = [f"{s}/anat/{c}" for s in ("sub-10/ses-1", "sub-9/ses-1", "sub-9/ses-2") for c in ("T1w", "FLAIR")]
    labels = [f"{MANUAL}/{s}/anat/dseg" for s in ("sub-10/ses-1", "sub-9/ses-1", "sub-9/ses-2")]
    root = lay(tmp_path, *anat, "sub-9/ses-1/anat/T2w", "sub-9/ses-1/func/task-rest_bold", *labels, table=TABLE)
    (root / "participants.tsv").write_text("participant_id\tname\nsub-9\tRoe\n")
    assert recognise(root) == ("bids", "dataset_description.json has BIDSVersion")
    found = open_dataset(root)
    assert pairs(found) == {
        f"{s}": ([f"{s}_FLAIR", f"{s}_T1w"], f"{s}_dseg") for s in ("sub-9_ses-1", "sub-9_ses-2", "sub-10_ses-1")
    }
    assert list(found.labelled()) == ["sub-9_ses-1", "sub-9_ses-2", "sub-10_ses-1"]
    assert [case.patient for case in found.cases] == ["sub-9", "sub-9", "sub-10"]
    assert found.channel_files is not None and found.channel_files.suffixes == ["_FLAIR", "_T1w"]
    info = info_of(found)
    assert found.name == "Brains" and info.channel_names == ["FLAIR", "T1w"] and info.channels == 2
    assert info.label_map.values == {"background": 0, "Gray Matter": 1, "Lesion": 2}
    assert {name: look.color for name, look in info.segments.items()} == {"Gray Matter": "#ff53bb"}
    assert "Roe" not in repr(found)


@given(
    st.sets(
        st.tuples(*[st.sampled_from(["", *some]) for some in (("ses-1", "ses-2"), ("acq-a", "acq-b"), ("run-1",))]),
        min_size=1,
    ),
    st.sets(st.sampled_from(["T1w", "FLAIR", "pet", "SEM"]), min_size=1, max_size=3),
)
def test_a_label_that_names_its_image_is_of_that_alone(places: set[tuple[str, ...]], suffixes: set[str]) -> None:
    stems = ["_".join(["sub-1", *filter(None, place), suffix]) for place in places for suffix in suffixes]
    folder = Path(tempfile.mkdtemp())
    try:
        for stem in stems:
            for path in (f"sub-1/anat/{stem}.nii.gz", f"{MANUAL}/sub-1/anat/{stem}_label-cord_mask.nii.gz"):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).touch()
        found = open_dataset(folder, "bids")
        assert pairs(found) == {stem: ([stem], f"{stem}_label-cord_mask") for stem in stems}
        assert not found.problems and info_of(found).label_map.foreground == ("cord",)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("images", "label", "expected"),
    [
        (["T1w"], "space-orig_dseg", ["T1w"]),
        (["T1w", "T2w"], "space-T2w_dseg", ["T2w"]),
        (["T1w", "T2w"], "mod-T2w_dseg", ["T2w"]),
        (["acq-a_T1w", "acq-b_T1w"], "acq-b_dseg", ["acq-b_T1w"]),
        (["run-1_T1w", "run-2_T1w"], "run-2_dseg", ["run-2_T1w"]),
        (["T1w", "ce-gd_T1w", "T2w"], "desc-x_dseg", ["T1w", "T2w", "ce-gd_T1w"]),
        (["T1w", "run-1_T2w"], "dseg", ["T1w", "run-1_T2w"]),
        (["T2w", "acq-ax_T2w"], "T2w_label-SC_seg", ["T2w"]),
        (["T2w"], "T2w_seg-manual", ["T2w"]),
        (["FLAIR"], "FLAIR_roi", ["FLAIR"]),
        (["T1w", "T1w_desc-x_mask.json"], "dseg", ["T1w"]),
        (["T1w", "defacemask", "probseg"], "dseg", ["T1w"]),
    ],
)
def test_a_label_has_the_entities_of_its_images(
    tmp_path: Path, images: list[str], label: str, expected: list[str]
) -> None:
    root = lay(tmp_path, *(f"sub-1/anat/{name}" for name in images), f"{MANUAL}/sub-1/anat/{label}")
    ((files, name),) = [pair for pair in pairs(open_dataset(root)).values() if pair[1]]
    assert files == [f"sub-1_{stem}" for stem in expected] and name == f"sub-1_{label}"


@pytest.mark.parametrize("label", ["space-MNI152_dseg", "res-2_dseg", "T1w_space-T2w_dseg"])
def test_a_label_in_another_space_is_of_no_image(tmp_path: Path, label: str) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/{label}")
    with pytest.raises(MedsegError, match=rf"sub-1_{label}.nii.gz does not lie in the space of sub-1_T1w"):
        open_dataset(root).labelled()
    lay(root, f"{MANUAL}/sub-1/anat/dseg")
    assert pairs(open_dataset(root)) == {"sub-1_T1w": (["sub-1_T1w"], "sub-1_dseg")}
    assert open_dataset(root).problems == ()


def test_a_derivative_with_images_of_its_own_stands_alone(tmp_path: Path) -> None:
    spaces = ("", "space-MNI_res-1_")
    own = [f"{MANUAL}/sub-1/anat/{space}{rest}" for space in spaces for rest in ("desc-preproc_T1w", "dseg")]
    lay(tmp_path, "sub-1/anat/T1w", *own)
    found = open_dataset(tmp_path / MANUAL, "bids")
    assert sorted(pairs(found).values()) == [
        (["sub-1_desc-preproc_T1w"], "sub-1_dseg"),
        (["sub-1_space-MNI_res-1_desc-preproc_T1w"], "sub-1_space-MNI_res-1_dseg"),
    ]


def test_of_several_labels_one_is_chosen_by_giving_it_or_its_derivative(tmp_path: Path) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", "sub-2/anat/T1w", *(f"{MANUAL}/sub-{n}/anat/dseg" for n in (1, 2)))
    lay(root, *(f"derivatives/other/sub-{n}/anat/label-{m}_mask" for n in (1, 2) for m in ("brain", "lesion")))
    with pytest.raises(
        MedsegError, match=r"sub-1_T1w.nii.gz has 3 labels, .*sub-1_dseg.* and .*sub-1_label-brain_mask"
    ):
        open_dataset(root)
    chosen = open_dataset(root / MANUAL)
    assert pairs(chosen) == {f"sub-{n}_T1w": ([f"sub-{n}_T1w"], f"sub-{n}_dseg") for n in (1, 2)}
    assert (chosen.root, chosen.path) == (root, root / MANUAL)
    label = root / "derivatives/other/sub-2/anat/sub-2_label-lesion_mask.nii.gz"
    assert recognise(label) == ("bids", "labels called *_label-lesion_mask in other")
    alike = open_dataset(label)
    assert pairs(alike) == {f"sub-{n}_T1w": ([f"sub-{n}_T1w"], f"sub-{n}_label-lesion_mask") for n in (1, 2)}
    assert info_of(alike).labels == {"background": 0, "lesion": 1} and open_dataset(label, "bids").cases == alike.cases
    with pytest.raises(MedsegError, match="has 2 labels"):
        open_dataset(root / "derivatives/other")
    for file in (root / "sub-1/anat/sub-1_T1w.nii.gz", tmp_path / "other.nii.gz"):
        file.touch()
        with pytest.raises(MedsegError, match="is no label of a BIDS data set"):
            open_dataset(file, "bids")


def test_one_image_of_several_labels_is_a_problem_of_its_case(tmp_path: Path) -> None:
    root = lay(
        tmp_path, *(f"{top}sub-{n}/anat/{x}" for n in (1, 2) for top, x in (("", "T1w"), (f"{MANUAL}/", "dseg")))
    )
    lay(root, f"{MANUAL}/sub-2/anat/desc-brain_mask")
    found = open_dataset(root)
    with pytest.raises(MedsegError, match=r"sub-2_T1w.nii.gz has 2 labels"):
        found.labelled()
    assert list(found.without(["sub-2"]).labelled()) == ["sub-1_T1w"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["ses-1/anat/run-1_T1w", "ses-1/anat/run-2_T1w"], r"may be of 2 images, .*run-1_T1w.*, .*run-2_T1w"),
        (["ses-1/anat/T1w", "ses-2/anat/T1w"], r"may be of 2 images, .*ses-1_T1w.*, .*ses-2_T1w"),
    ],
)
def test_a_label_of_several_runs_or_sessions_is_refused(tmp_path: Path, images: list[str], message: str) -> None:
    root = lay(tmp_path, *(f"sub-1/{image}" for image in images), f"{MANUAL}/sub-1/anat/dseg")
    with pytest.raises(MedsegError, match=message) as error:
        open_dataset(root).labelled()
    assert len(str(error.value)) <= 500
    assert open_dataset(root).without(["sub-1_dseg"]).problems == ()


def test_images_like_those_that_have_labels_are_cases_without_one(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"sub-{n}/anat/{c}" for n in (1, 2, 3) for c in ("T1w", "T2w")), "sub-4/anat/angio")
    lay(root, f"{MANUAL}/sub-2/anat/T2w_label-SC_seg")
    assert {name: label for name, (_, label) in pairs(open_dataset(root)).items()} == {
        "sub-1_T2w": None,
        "sub-2_T2w": "sub-2_T2w_label-SC_seg",
        "sub-3_T2w": None,
    }
    (root / MANUAL / "sub-2/anat/sub-2_T2w_label-SC_seg.nii.gz").rename(
        root / MANUAL / "sub-2/anat/sub-2_label-SC_seg.nii.gz"
    )
    found = open_dataset(root)
    assert list(pairs(found)) == ["sub-1", "sub-2", "sub-3"] and all(len(case.images) == 2 for case in found.cases)
    with pytest.raises(MedsegError, match=r"2 of 3 images have no label .*data.exclude: \[sub-1, sub-3\]"):
        found.labelled()
    lay(root, f"{MANUAL}/sub-9/anat/label-SC_seg")
    assert list(open_dataset(root).orphans) == ["sub-9_label-SC_seg"]
    shutil.rmtree(root / "derivatives")
    assert len(open_dataset(root).cases) == 7 and open_dataset(root).info is None


def test_another_run_lacks_its_label_and_another_kind_of_image_needs_none(tmp_path: Path) -> None:
    images = (f"sub-1/anat/{name}_T1w" for name in ("acq-b_run-1", "acq-b_run-2", "acq-a_run-1"))
    root = lay(tmp_path, *images, f"{MANUAL}/sub-1/anat/acq-b_run-2_dseg")
    assert {name: label for name, (_, label) in pairs(open_dataset(root)).items()} == {
        "sub-1_acq-b_run-1_T1w": None,
        "sub-1_acq-b_run-2_T1w": "sub-1_acq-b_run-2_dseg",
    }


def test_labels_without_a_common_contrast_are_a_problem_each(tmp_path: Path) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", "sub-2/anat/T2w", *(f"{MANUAL}/sub-{n}/anat/dseg" for n in (1, 2)))
    found = open_dataset(root)
    assert not found.cases and [problem.case for problem in found.problems] == ["sub-1", "sub-2"]
    with pytest.raises(MedsegError, match="no contrast is there for every label; this one has T1w"):
        found.labelled()


def test_the_contrast_on_the_label_s_grid_comes_first_and_voxels_are_the_files_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    t1, label = rng.normal(size=(5, 4, 3)).astype(np.float32), rng.integers(0, 2, (5, 4, 3), np.uint8)
    write(lay(tmp_path) / "sub-1/anat/sub-1_FLAIR.nii.gz", t1[:4], 9.0)
    write(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", t1)
    write(tmp_path / MANUAL / "sub-1/anat/sub-1_label-lesion_mask.nii.gz", label)
    found = open_dataset(tmp_path)
    (case,) = found.labelled().values()
    assert [path.name for path in case.images] == ["sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz"]
    with pytest.raises(MedsegError, match=r"data.resample_channels"):
        open_image(case)
    (case,) = found.resampling().labelled().values()
    image, truth, box = open_image(case), open_case_label(case), Box((0, 0, 0), (5, 4, 3))
    check_grid(truth, image)
    np.testing.assert_array_equal(image.read(box)[0], t1)
    np.testing.assert_array_equal(truth.read(box)[0], label)


def test_the_table_in_the_nearest_folder_counts(tmp_path: Path) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/seg-aseg_dseg", table=TABLE)
    tables = {
        "dseg.tsv": "far",
        "derivatives/manual/seg-aseg_dseg.tsv": "closer",
        "derivatives/manual/seg-other_dseg.tsv": "foreign",
        "derivatives/manual/sub-1/anat/sub-1_seg-aseg_dseg.tsv": "beside",
    }
    known = []
    for place, name in tables.items():
        (root / place).write_text(f"index\tname\n5\t{name}\n")
        known.append(list(info_of(open_dataset(root)).labels))
    assert known[0] == ["background", "Gray Matter", "Lesion"]
    assert [names[1] for names in known[1:]] == ["closer", "closer", "beside"]
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "own": 3}}))
    assert info_of(open_dataset(root)).labels == {"background": 0, "own": 3}


@pytest.mark.parametrize(
    "told",
    [{"1": "GM", "2": "WM"}, {"GM": 1, "WM": 2}, ["BG", "GM", "WM"], {"0": "BG", "1": "GM", "2": "WM"}],
)
def test_a_label_map_names_the_values(tmp_path: Path, told: Any) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/dseg")
    (root / MANUAL / "sub-1/anat/sub-1_dseg.json").write_text(json.dumps({"Manual": True, "LabelMap": told}))
    labels = info_of(open_dataset(root)).label_map
    assert labels.foreground == ("GM", "WM") and [labels.values[name] for name in labels.foreground] == [1, 2]


def test_rows_of_one_name_are_one_label(tmp_path: Path) -> None:
    table = "index\tabbreviation\tname\n0\tBG\tNothing\n3\tL\tLobe\n2\tV\tVentricle\n4\tR\tLobe\n"
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/dseg", table=table)
    assert info_of(open_dataset(root)).labels == {"Nothing": 0, "Ventricle": 2, "Lobe": [3, 4]}
    assert info_of(open_dataset(root)).label_map.foreground == ("Ventricle", "Lobe")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dseg.tsv", "index name\n1 a\n", r"dseg.tsv has no column 'index'"),
        ("dseg.tsv", "index\tname\n1\ta\none\tb\n", r"dseg.tsv:3: each row must have an index of its own"),
        ("dseg.tsv", "index\tname\n1\ta\n1\tb\n", r"dseg.tsv:3: each row"),
        ("dseg.tsv", "index\tname\n1\n", r"dseg.tsv:2: each row"),
        ("dseg.tsv", "index\tname\n0\tnothing\n", r"dseg.tsv: .*none of the labels nothing is foreground"),
        ("dseg.json", '{"LabelMap": {"a": "b"}}', r"dseg.json: LabelMap must give each value a name"),
        ("dseg.json", '{"LabelMap": 3}', r"dseg.json: LabelMap must"),
        ("dseg.json", '{"LabelMap": {"1": ""}}', r"dseg.json: LabelMap must"),
        ("dseg.json", "{", r"dseg.json is not readable as JSON"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, name: str, content: str, message: str) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/dseg")
    (root / MANUAL / name).write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        open_dataset(root)
    assert len(str(error.value)) <= 500


def test_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"sub-{n}/anat/T1w" for n in (1, 2)), *(f"{MANUAL}/sub-{n}/anat/dseg" for n in (1, 2)))
    for n, name in ((1, "tumour"), (2, "oedema")):
        (root / MANUAL / f"sub-{n}/anat/sub-{n}_dseg.tsv").write_text(f"index\tname\n1\t{name}\n")
    with pytest.raises(ConfigError, match=r"sub-1_dseg.tsv and .*sub-2_dseg.tsv name .*tumour 1; .*oedema 1"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("label-lesion_desc-rater1_mask", "lesion"),
        ("desc-tumour_mask", "tumour"),
        ("T1w_lesion-manual", "lesion"),
        ("T1w_label-SC_seg", "SC"),
        ("lesion-msk", "lesion"),
        ("dseg", None),
        ("T1w_seg-axon-manual.png", None),
    ],
)
def test_a_mask_s_one_structure_is_called_as_its_name_says(tmp_path: Path, label: str, named: str | None) -> None:
    root = lay(tmp_path, "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/{label}")
    found = open_dataset(root)
    assert list(found.labelled()) == ["sub-1_T1w"]
    assert (found.info and found.info.labels) == ({"background": 0, named: 1} if named else None)


@pytest.mark.parametrize("top", ["derivatives", "derivatives/lab/manual", "."])
def test_derivatives_may_have_no_name_and_labels_lie_beside_images(tmp_path: Path, top: str) -> None:
    root = lay(tmp_path, "sub-1/ses-1/dwi/dwi", "sub-1/ses-1/dwi/adc", f"{top}/sub-1/ses-1/msk")
    assert pairs(open_dataset(root)) == {"sub-1_ses-1": (["sub-1_ses-1_adc", "sub-1_ses-1_dwi"], "sub-1_ses-1_msk")}


def test_images_may_lie_in_rawdata(tmp_path: Path) -> None:
    root = lay(tmp_path, "rawdata/sub-1/ct/ct", f"{MANUAL}/sub-1/ct/dseg", table=TABLE)
    found = open_dataset(root)
    assert (found.layout, list(pairs(found))) == ("bids", ["sub-1_ct"])
    assert info_of(found).channel_names == ["CT"]


def test_what_is_no_bids_is_left_to_other_layouts(tmp_path: Path) -> None:
    (lay(tmp_path) / "images").mkdir()
    assert recognise(tmp_path)[0] == "folders"
    (tmp_path / "sub-1").mkdir()
    assert recognise(tmp_path)[0] == "bids"
    (tmp_path / "dataset_description.json").write_text('{"Name": "x"}')
    assert recognise(tmp_path)[0] == "folders"
    (tmp_path / "sub-1").rmdir()
    with pytest.raises(MedsegError, match="has no folder sub-"):
        open_dataset(tmp_path, "bids")


def annexed(path: Path, root: Path, fetched: bool) -> None:
    """A file as git-annex keeps it: a link into .git/annex/objects."""
    content = root / ".git/annex/objects/aa" / path.name
    content.parent.mkdir(parents=True, exist_ok=True)
    path.rename(content)
    path.symlink_to(os.path.relpath(content, path.parent))
    if not fetched:
        content.unlink()


def test_links_of_git_annex_are_followed_and_those_that_dangle_name_the_remedy(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"sub-{n}/anat/T1w" for n in (1, 2, 3)), *(f"{MANUAL}/sub-{n}/anat/dseg" for n in (1, 2, 3)))
    annexed(root / "sub-1/anat/sub-1_T1w.nii.gz", root, True)
    annexed(root / "sub-2/anat/sub-2_T1w.nii.gz", root, False)
    (root / MANUAL / "sub-3/anat/sub-3_dseg.nii.gz").write_text("/annex/objects/MD5E-s9--0.nii.gz\n")
    found = open_dataset(root)
    assert [problem.case for problem in found.problems] == ["sub-2_T1w", "sub-3_T1w"]
    with pytest.raises(MedsegError, match=r"link of git-annex .*datalad get sub-2/anat/sub-2_T1w.nii.gz"):
        found.labelled()
    assert list(found.without(["sub-2_T1w", "sub-3_T1w"]).labelled()) == ["sub-1_T1w"]


@pytest.mark.parametrize(
    "place",
    [
        "sub-1",
        "sub-1/anat",
        "sub-1/anat/sub-1_T1w.nii.gz",
        "derivatives",
        MANUAL,
        f"{MANUAL}/sub-1/anat/sub-1_dseg.nii.gz",
        f"{MANUAL}/dseg.tsv",
        "dataset_description.json",
    ],
)
def test_no_link_leads_out(tmp_path: Path, place: str) -> None:
    root = lay(tmp_path / "root", "sub-1/anat/T1w", f"{MANUAL}/sub-1/anat/dseg", table=TABLE)
    outside = tmp_path / "outside"
    (root / place).rename(outside)
    os.symlink(outside, root / place)
    with pytest.raises(MedsegError, match="leads out of the data set"):
        open_dataset(root)


def test_the_real_spleen_is_a_pair_and_the_real_spine_must_be_chosen(real_data: Path) -> None:
    root = real_data / "ivadomed_testing"
    assert list(open_dataset(root / "ct_scan").labelled()) == ["sub-spleen2_ct"]
    with pytest.raises(MedsegError, match="has 2 labels"):
        open_dataset(root)
    chosen = root / "derivatives/labels/sub-unf01/anat/sub-unf01_T2w_seg-manual.nii.gz"
    assert list(open_dataset(chosen).labelled()) == ["sub-unf01_T2w"]
