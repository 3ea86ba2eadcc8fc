import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medseg import Experiment, MedsegError

CONFIGS = sorted(p for p in (Path(__file__).parents[1] / "configs").rglob("*.yaml") if p.parent.name != "compare")
# Those of comparisons have a loader of their own: tests/test_compare_networks.py.
GOOD = """\
name: good
data:
  root: somewhere
network:
  name: unet
  depth: 3
training:
  max_steps: 5
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_loads_and_survives_the_round_trip(path, tmp_path):
    experiment = Experiment.load(path)
    again = tmp_path / "again.yaml"
    again.write_text(experiment.to_yaml())
    assert Experiment.load(again) == experiment


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_config_refers_to_the_schema(path):
    head = path.read_text().splitlines()[0]
    schema = path.parent / head.removeprefix("# yaml-language-server: $schema=")
    again = "write it again: medseg schema > configs/experiment.schema.json"
    assert json.loads(schema.read_text()) == Experiment.json_schema(), again


def test_overrides_are_yaml_and_make_sections(config):
    experiment = Experiment.load(
        config,
        ["training.max_minutes=2", "tracking.pictures=0", "data.validation=[a, b]", "training.learning_rate=1e-4"],
    )
    assert experiment.training.max_minutes == 2
    assert experiment.training.learning_rate == 1e-4
    assert experiment.tracking.pictures == 0
    assert experiment.data.validation == ["a", "b"]


def test_minutes_alone_set_no_steps(config):
    config.write_text(GOOD.replace("max_steps: 5", "max_minutes: 3"))
    assert Experiment.load(config).training.max_steps is None
    config.write_text(GOOD.replace("max_steps: 5", "batch: 1"))
    assert Experiment.load(config).training.max_steps == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("  depth: 3", "  depth: 3\nlos: {}"), r"config.yaml:7: unknown key los; did you mean 'loss'\?"),
        (("max_steps: 5", "max_step: 5"), r"config.yaml:8: unknown key training.max_step; did you mean 'max_steps'"),
        (("max_steps: 5", "max_steps: many"), r"config.yaml:8: training.max_steps is 'many'"),
        (("max_steps: 5", "max_steps: -1"), r"config.yaml:8: training.max_steps is -1: .*greater than 0"),
        (("  root: somewhere", "  root: 3"), r"config.yaml:3: data.root"),
        (("  root: somewhere", "  labels: {a: x}"), r"config.yaml:3: data.labels.a is 'x'"),
        (("name: good\n", ""), r"config.yaml:1: name is missing"),
        (("  depth: 3", "  depth: 3\n  depth: 4"), r"config.yaml:7: key depth stands twice, first in line 6"),
        (("name: good", "name: [good"), r"config.yaml:\d+: not YAML"),
        (("name: good", "name: ../up"), r"config.yaml:1: name is '../up'"),
        (("max_steps: 5", "precision: 8"), r"training.precision is '?8'?"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(config, change, message):
    config.write_text(GOOD.replace(*change))
    with pytest.raises(MedsegError, match=message) as error:
        Experiment.load(config)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 500


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.max_stepz=3", r"command line \(training.max_stepz=3\): unknown key training.max_stepz"),
        ("training.max_steps=x", r"command line .* training.max_steps is 'x'"),
        ("training.max_steps", "is no override"),
        ("=3", "is no override"),
        ("training.window=[1", "not YAML"),
    ],
)
def test_an_override_that_is_wrong_is_told(config, override, message):
    with pytest.raises(MedsegError, match=message):
        Experiment.load(config, [override])


@pytest.mark.parametrize("content", ["", "- a\n", "3\n"])
def test_a_file_without_keys_is_no_config(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(MedsegError, match="holds no keys"):
        Experiment.load(path)


def test_a_missing_file_names_the_nearest(config):
    with pytest.raises(MedsegError, match=r"confg.yaml does not exist; did you mean 'config.yaml'"):
        Experiment.load(config.with_name("confg.yaml"))


def test_python_objects_are_not_loaded(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(MedsegError, match="not YAML"):
        Experiment.load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["name", "data", "network", "training", "loss", "seed", "x"]), json_values))
def test_whatever_a_config_holds_it_loads_or_is_refused_in_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        Experiment.load(path)
    except MedsegError as error:
        assert len(str(error)) <= 500
