"""Names that tell nobody: the same everywhere under one salt, others under another."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import private
from medseg.datasets import case_names
from medseg.datasets.case_names import (
    MAP,
    SALT,
    by_case,
    digest_name,
    digest_patient,
    is_private,
    named,
    named_as,
    source_names,
    write_map,
)
from medseg.datasets.cases import Case, digest
from medseg.datasets.layouts.dataset import DataSet, Problem
from medseg.errors import ConfigError, MedsegError


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """Settings of its own, and nothing concealed yet."""
    monkeypatch.delenv("MEDSEG_CASE_SALT", raising=False)
    monkeypatch.setenv("MEDSEG_CONFIG", str(tmp_path / "settings"))
    monkeypatch.setattr(private, "_NAMES", {})
    return tmp_path / "settings"


def test_one_salt_is_made_once_for_its_owner_alone_however_many_ask(settings):
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(digest_name, ["Doe"] * 16))
    assert len(names) == 1
    assert [path.name for path in settings.iterdir()] == [SALT]
    assert stat.S_IMODE((settings / SALT).stat().st_mode) == 0o600


def test_names_depend_on_the_salt_and_the_key_alone(monkeypatch):
    first = digest_name("Doe")
    assert first != digest_name("Roe") != digest_patient("Roe")
    assert digest_name(first) == first
    monkeypatch.setenv("MEDSEG_CASE_SALT", "another secret")
    assert digest_name("Doe") != first
    assert digest_patient("Doe").removeprefix("patient-") != digest_name("Doe").removeprefix("case-")


@pytest.mark.parametrize("content", ["", "short"])
def test_a_damaged_salt_is_refused(settings, content):
    settings.mkdir()
    (settings / SALT).write_text(content)
    with pytest.raises(ConfigError, match="no salt"):
        digest_name("Doe")


def test_where_no_salt_can_be_kept_it_is_said_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDSEG_CONFIG", str(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match="MEDSEG_CASE_SALT"):
        digest_name("Doe")


@pytest.fixture
def found(tmp_path):
    """A data set of a DICOM folder, a DICOM file, and a NIfTI; and what is wrong with it."""
    root = tmp_path / "root"
    (root / "Doe").mkdir(parents=True)
    cases = (
        Case("Doe", root / "Doe", root / "Doe.nii.gz", "Doe"),
        Case("Roe", root / "Roe.dcm", root / "Roe.nii.gz", "P1"),
        Case("plain", root / "plain.nii.gz", None, "plain"),
    )
    problems = (Problem(f"row 1: case Doe: {root / 'Doe'} does not exist", "Doe"), Problem("the table is bad"))
    orphans = {"Poe": root / "Poe.dcm", "lone": root / "lone.nii"}
    return DataSet("manifest", root, "set", None, cases, orphans, problems)


def test_cases_with_dicom_are_called_by_digests_and_others_by_stems(found):
    told = named(found)
    assert [case.name for case in told.cases] == [digest_name("Doe"), digest_name("Roe"), "plain"]
    assert list(told.orphans) == [digest_name("Poe"), "lone"]
    assert [case.patient for case in told.cases] == ["Doe", "P1", "plain"]  # draws do not change with the salt
    assert "Doe" not in told.problems[0].text
    assert told.problems[0].case == digest_name("Doe")
    assert named(told) == told


def test_under_digests_all_are(found):
    told = named(found, "digest")
    names = [case.name for case in told.cases] + list(told.orphans)
    assert names == [digest_name(stem) for stem in ("Doe", "Roe", "plain", "Poe", "lone")]


def test_errors_call_concealed_files_by_their_cases(found):
    told = named(found)
    name, place = told.cases[0].name, found.root / "Doe"
    assert str(MedsegError(f"{place}: bad; {place}/IM 1: worse")) == f"{name}: bad; {name} 1: worse"
    assert str(MedsegError(f"{found.root / 'Roe.nii.gz'} is bad")) == f"{told.cases[1].name} is bad"
    beside = f"{found.root / 'Doe2'} and {found.root / 'plain.nii.gz'}"
    assert str(MedsegError(beside)) == beside


def test_a_user_names_cases_either_way(found):
    told = named(found)
    assert [case.name for case in told.without(["Doe", digest_name("Roe")]).cases] == ["plain"]
    assert named_as(["Doe", "plain", digest_name("Roe")], told) == [digest_name("Doe"), "plain", digest_name("Roe")]
    assert named_as(["who"], told) == [digest_name("who")]
    assert named_as(["who"], DataSet("folders", found.root, "set", None, found.cases[2:])) == ["who"]


def test_the_digest_of_a_data_set_does_not_depend_on_how_its_cases_are_called(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"image")
    (tmp_path / "b.nii").write_bytes(b"other")
    cases = [Case(stem, tmp_path / f"{stem}.nii", None, stem) for stem in "ab"]
    told = named(DataSet("folders", tmp_path, "set", None, tuple(cases)), "digest")
    assert digest(told.cases) == digest(cases)


def test_two_cases_of_one_digest_are_refused(found, monkeypatch):
    monkeypatch.setattr(case_names, "_digest", lambda kind, key: "aaaaaaaa")
    with pytest.raises(MedsegError, match="two cases have the digest case-aaaaaaaa"):
        named(found)


def test_scans_that_share_a_private_stem_are_told_apart_by_their_folders(tmp_path):
    paths = [tmp_path / patient / "CT" for patient in ("a", "b")] + [tmp_path / "x.nii.gz", tmp_path / "y" / "x.nii.gz"]
    for path in paths[:2]:
        path.mkdir(parents=True)
    names = source_names(paths, ["CT", "CT", "x", "x"])
    assert len({*names[:2], digest_name("CT")}) == 3
    assert names[2:] == ["x", "x"]
    assert source_names(paths[:1], ["CT"]) == [digest_name("CT")]


def test_files_find_their_cases_by_stem_or_digest(tmp_path):
    found = {stem: tmp_path / f"{stem}.nii.gz" for stem in ("Doe", "Roe_0000", "plain")}
    assert set(by_case(found)) == set(found)
    wanted = [digest_name("Doe"), digest_name("Roe"), "plain"]
    assert list(by_case(found, wanted)) == wanted
    assert list(by_case({"Doe": tmp_path / "Doe.dcm"})) == [digest_name("Doe")]


def test_the_map_links_back_for_its_owner_alone_and_keeps_earlier_rows(tmp_path):
    old = os.umask(0)
    try:
        assert write_map(tmp_path / "out", [("plain", tmp_path / "plain.nii")]) is None
        assert not (tmp_path / "out").exists()
        for stem in ("Doe", "Roe", "Doe"):
            write_map(tmp_path / "out", [(digest_name(stem), tmp_path / f"{stem}, é.dcm")])
    finally:
        os.umask(old)
    path = tmp_path / "out" / MAP
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = path.read_text().splitlines()
    assert rows[0] == "case,file"
    assert sorted(rows[1:]) == sorted(f'{digest_name(stem)},"{tmp_path / f"{stem}, é.dcm"}"' for stem in ("Doe", "Roe"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_any_stem_has_a_name_that_is_fit_for_a_file_and_says_nothing_of_it(stem):
    name = digest_name(stem)
    assert len(name) == 13
    assert name.removeprefix("case-").isalnum()
    assert is_private(Path(name).with_suffix(".dcm"))
    assert not is_private(Path(name).with_suffix(".nii"))
