"""docs/dicom.md says what is so."""

from pathlib import Path

from medseg.scans.dicom_facts import KEYS


def test_all_keys_of_filters_are_listed():
    text = " ".join((Path(__file__).parents[2] / "docs" / "dicom.md").read_text().split())
    assert f"Keys: {', '.join(KEYS)}." in text
