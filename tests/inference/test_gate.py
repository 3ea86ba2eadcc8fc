"""The gate: every training image passes, what a model does not care for is not told, and the rest is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.checks.facts import Channel, Facts, Grid
from medseg.datasets.checks.finding import CaseFacts
from medseg.datasets.fingerprint import Fingerprint, Image
from medseg.inference.gate import EXTENT, RESAMPLED_SPACING, SPACING, remarks, told
from medseg.scans.preprocessing import Normalization, Preprocessing

ZSCORE = Preprocessing()
PLAIN = Preprocessing(normalize=Normalization(kind="none"))
WINDOW = Preprocessing(normalize=Normalization(kind="range", range=(-160, 240)))
RESAMPLED = Preprocessing(spacing_mm=[1, 1, 1])
AS_STORED = Preprocessing(orientation=None)
WAYS = [ZSCORE, PLAIN, WINDOW, RESAMPLED, AS_STORED]
CT = (-1000.0, -900.0, -50.0, 100.0, 900.0)


def facts(
    shape=(40, 40, 20),
    spacing=(1.0, 1.0, 2.0),
    quantiles=CT,
    dtype="int16",
    modality="",
    unit="mm",
    anatomical=True,
    axes="XYZ",
    signs=(1, 1, 1),
    unit_assumed=False,
):
    matrix = np.diag([*(s * sign for s, sign in zip((*spacing, 1.0)[:3], signs, strict=True)), 1.0])
    grid = Grid("image", shape, 1, dtype, axes, tuple(map(tuple, matrix.tolist())), unit, anatomical)
    channel = Channel(quantiles[0], quantiles[-1], None, quantiles=quantiles)
    return Facts("", grid, "", (channel,), modality=modality, unit_assumed=unit_assumed)


def fingerprint(*images):
    known = Fingerprint.of(CaseFacts(str(n), str(n), (image,), None) for n, image in enumerate(images))
    assert known is not None
    return known


def checks(image, known, preprocessing=ZSCORE):
    found = remarks(Image.of([image]), known, preprocessing)
    assert all(remark.what in told(found) for remark in found)
    assert "\n" not in told(found)
    return [remark.check for remark in found]


positive = st.floats(0.1, 50)
IMAGES = st.builds(
    facts,
    shape=st.tuples(*[st.integers(1, 500)] * 3),
    spacing=st.tuples(positive, positive, positive),
    quantiles=st.lists(st.floats(-3000, 5000), min_size=5, max_size=5).map(lambda q: tuple(sorted(q))),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    modality=st.sampled_from(["", "CT", "MR"]),
    unit=st.sampled_from(["mm", "um", "pixel"]),
    anatomical=st.booleans(),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    unit_assumed=st.booleans(),
)


@given(st.lists(IMAGES, min_size=1, max_size=5), st.sampled_from(WAYS))
def test_every_training_image_passes(images, preprocessing):
    known = fingerprint(*images)
    for image in images:
        assert checks(image, known, preprocessing) == []


@given(IMAGES, st.integers(0, 2), st.sampled_from([2.0, 0.5]), st.sampled_from(WAYS))
def test_twice_or_half_the_spacing_is_told(image, axis, factor, preprocessing):
    spacing = list(image.grid.spacing_mm)
    spacing[axis] *= factor
    matrix = np.array(image.grid.matrix)
    matrix[axis] *= factor
    other = replace(image, grid=replace(image.grid, matrix=tuple(map(tuple, matrix.tolist()))))
    found = checks(other, fingerprint(image), preprocessing)
    assert ("spacing" in found) == (image.grid.unit != "pixel")


@pytest.mark.parametrize(("preprocessing", "limit"), [(ZSCORE, SPACING), (RESAMPLED, RESAMPLED_SPACING)])
def test_spacings_within_the_limits_are_not_told(preprocessing, limit):
    known = fingerprint(facts(spacing=(1, 1, 2)), facts(spacing=(1, 1, 3)))
    for spacing, wanted in [(2 / limit, []), (3 * limit, []), (3 * limit + 0.1, ["spacing"]), (1.2, ["spacing"])]:
        size = round(40 / spacing)  # the same field of view
        assert checks(facts((40, 40, size), (1, 1, spacing)), known, preprocessing) == wanted


def test_the_line_says_the_axis_and_the_numbers():
    known = fingerprint(facts(spacing=(1, 1, 0.9)), facts(spacing=(1, 1, 1.2)))
    (remark,) = remarks(Image.of([facts((40, 40, 8), (1, 1, 5))]), known, ZSCORE)
    assert remark.what == "spacing 5 mm along S-I (training: 0.9 to 1.2)"


def test_a_scan_without_a_unit_is_told_only_to_a_model_that_knows_one():
    assert checks(facts(unit="pixel"), fingerprint(facts())) == ["spacing"]
    assert checks(facts(unit="pixel"), fingerprint(facts(), facts(unit="pixel"))) == []
    assert checks(facts(), fingerprint(facts(unit="pixel"))) == []


def test_a_unit_that_is_taken_for_granted_is_told_only_to_a_model_whose_scans_all_state_theirs():
    silent, stated = facts(unit_assumed=True), fingerprint(facts())
    (remark,) = remarks(Image.of([silent]), stated, ZSCORE)
    assert remark.what == "states no unit: read as mm (training: mm)"
    assert checks(silent, stated.model_copy(update={"unit_assumed": None})) == []
    assert checks(silent, fingerprint(facts(), silent)) == []
    assert checks(silent, fingerprint(facts(), facts(unit="pixel"))) == []
    assert checks(facts(), fingerprint(silent)) == []


@pytest.mark.parametrize(
    ("answers", "together"),
    [([False, False], False), ([False, True], True), ([None, True], True), ([None, False], None)],
)
def test_several_models_know_of_units_what_each_does(answers, together):
    known = [fingerprint(facts()).model_copy(update={"unit_assumed": answer}) for answer in answers]
    assert Fingerprint.joined(known).unit_assumed is together


def test_orientation_counts_where_the_model_does_not_turn_its_scans():
    known, turned = fingerprint(facts()), facts(signs=(-1, -1, 1))
    assert checks(turned, known, ZSCORE) == []
    assert checks(turned, known, AS_STORED) == ["orientation"]
    assert checks(turned, fingerprint(facts(), turned), AS_STORED) == []
    assert checks(facts(anatomical=False), known) == ["orientation"]
    assert checks(facts(), fingerprint(facts(anatomical=False))) == ["orientation"]


def test_fields_of_view_count_where_a_patient_lies_in_them():
    known = fingerprint(facts())
    wide = facts(shape=(math.ceil(40 * EXTENT) + 1, 40, 20))
    assert checks(wide, known) == ["field_of_view"]
    assert checks(facts(shape=(40, 40, 9)), known) == ["field_of_view"]
    assert checks(facts(shape=(40 * int(EXTENT), 40, 20)), known) == []
    small = {"unit": "um", "anatomical": False, "axes": "ZYX"}
    assert checks(facts(shape=(4000, 9000, 20), **small), fingerprint(facts(**small))) == []


def test_modality_counts_where_both_are_known():
    known = fingerprint(facts(modality="CT"))
    assert checks(facts(modality="MR"), known) == ["modality"]
    assert checks(facts(modality="CT"), known) == checks(facts(), known) == []
    assert checks(facts(modality="MR"), fingerprint(facts())) == []
    assert checks(facts(modality="Jane Doe"), known) == []


@pytest.mark.parametrize("preprocessing", [PLAIN, WINDOW])
def test_shifted_or_scaled_intensities_are_told_but_to_a_model_that_scales_each_scan(preprocessing):
    known = fingerprint(facts(), facts(quantiles=(-1024, -950, -100, 80, 1200)))
    shifted, scaled = (facts(quantiles=tuple(f(q) for q in CT)) for f in (lambda q: q + 1024, lambda q: q / 1000))
    for image in (shifted, scaled):
        assert checks(image, known, preprocessing) == ["intensity"]
        assert checks(image, known, ZSCORE) == []


def test_what_is_clipped_alike_is_alike():
    known = fingerprint(facts())
    metal = facts(quantiles=(-1000, -900, -50, 100, 15000))
    assert checks(metal, known, PLAIN) == ["intensity"]
    assert checks(metal, known, WINDOW) == []
    clipped = {"low": [-160.0], "high": [240.0], "shift": [0.0], "scale": [1.0]}
    dataset = Preprocessing(normalize=Normalization(kind="dataset", rescale=clipped))
    assert checks(metal, known, dataset) == []
    assert checks(facts(quantiles=(24, 100, 900, 1200, 2000)), known, dataset) == ["intensity"]


@pytest.mark.parametrize("preprocessing", WAYS)
def test_constant_and_inverted_images_are_told_to_every_model(preprocessing):
    known = fingerprint(facts(quantiles=(0, 0, 10, 80, 100)))
    assert checks(facts(quantiles=(7,) * 5), known, preprocessing) == ["constant"]
    assert checks(facts(quantiles=(0, 20, 90, 100, 100)), known, preprocessing) == ["contrast"]
    assert checks(facts(quantiles=(0, 0, 30, 90, 100)), known, preprocessing) == []


def test_values_that_were_windowed_into_bytes_or_were_not():
    wide, bytes = facts(), facts(quantiles=(0, 20, 100, 200, 255), dtype="uint8")
    assert checks(bytes, fingerprint(wide)) == ["pixel_type"]
    assert checks(wide, fingerprint(bytes)) == ["pixel_type"]
    assert checks(replace(bytes, grid=replace(bytes.grid, dtype="float32")), fingerprint(bytes)) == []
    assert checks(bytes, fingerprint(wide, bytes)) == checks(wide, fingerprint(wide, bytes)) == []


def test_a_header_alone_tells_what_it_can():
    known = fingerprint(facts(modality="CT"))
    image = replace(facts((40, 40, 4), (1, 1, 10), modality="MR"), channels=())
    assert checks(image, known) == ["modality", "spacing"]
