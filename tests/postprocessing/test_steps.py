"""Steps as a config and a file name them."""

import pytest
from pydantic import TypeAdapter

from medseg.datasets.labels import Labels
from medseg.errors import ConfigError
from medseg.postprocessing.settings import STEPS, Step, check_steps, parse_steps, read_steps

ORGANS = Labels({"background": 0, "liver": 1, "tumour": 2})
EVERY = [
    {"name": "remove_small", "labels": ["liver"], "min_mm3": 50},
    {"name": "keep_largest", "count": 2, "joined": True},
    {"name": "fill_holes", "max_voxels": 9, "connectivity": 2},
    {"name": "instances"},
]


def test_every_step_is_read_in_its_order_and_survives_the_round_trip():
    steps = parse_steps(EVERY, "a.yaml")
    assert [step.name for step in steps] == [spec["name"] for spec in EVERY] == list(STEPS)
    assert parse_steps([step.model_dump(mode="json") for step in steps], "a.yaml") == steps
    check_steps(steps, ORGANS, 3)


@pytest.mark.parametrize("text", ["- {name: keep_largest}", "postprocessing: [{name: keep_largest}]\nname: other"])
def test_a_file_is_a_list_or_has_the_key_of_a_config(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert read_steps(tmp_path / "a.yaml") == parse_steps([{"name": "keep_largest"}], "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"name": "keep_larges"}], "postprocessing.0: name 'keep_larges' is no step; did you mean 'keep_largest'"),
        ([{"name": "fill_holes", "max_voxel": 3}], "no argument 'max_voxel'; did you mean 'max_voxels'"),
        ([{"name": "remove_small"}], "needs one of min_voxels, min_mm2 and min_mm3"),
        ([{"name": "remove_small", "min_voxels": 3, "min_mm3": 3}], "needs one of"),
        ([{"name": "fill_holes", "max_voxels": 3, "max_mm2": 3}], "takes one of"),
        ([{"name": "keep_largest", "count": 0}], "postprocessing.0.count: .*greater than 0"),
        ([{"name": "keep_largest", "connectivity": 4}], "less than or equal to 3"),
        (["keep_largest"], "mapping that names itself"),
        ({"name": "keep_largest"}, "valid list"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_steps(content, "a.yaml")


@pytest.mark.parametrize(
    ("spec", "dims", "message"),
    [
        ([{"name": "keep_largest", "labels": ["tumor"]}], None, "'tumor' .*did you mean 'tumour'"),
        ([{"name": "keep_largest", "labels": ["background"]}], None, "none of the labels liver, tumour"),
        ([{"name": "instances"}, {"name": "keep_largest"}], None, "instances is the last step"),
        ([{"name": "keep_largest", "connectivity": 3}], 2, "connectivity 3 is above the 2 axes"),
        ([{"name": "remove_small", "min_mm3": 3}], 2, "min_mm3 is for scans of 3 axes and this one has 2: use mm2"),
        ([{"name": "fill_holes", "max_mm2": 3}], 3, "max_mm2 is for scans of 2 axes and this one has 3: use mm3"),
    ],
)
def test_steps_that_do_not_suit_are_told(spec, dims, message):
    with pytest.raises(ConfigError, match=message):
        check_steps(parse_steps(spec, ""), ORGANS, dims)


def test_without_names_labels_are_values():
    check_steps(parse_steps([{"name": "keep_largest", "labels": ["1", "-2"]}], ""), None)
    with pytest.raises(ConfigError, match="name a value, such as 1"):
        check_steps(parse_steps([{"name": "keep_largest", "labels": ["liver"]}], ""), None)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "does not exist"), ("a: [", "as YAML"), ("steps: []", "no key postprocessing")]
)
def test_a_file_that_is_none_is_told(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_steps(path)


def test_the_schema_names_every_step():
    schema = TypeAdapter(Step).json_schema()
    assert set(schema["discriminator"]["mapping"]) == set(STEPS)
