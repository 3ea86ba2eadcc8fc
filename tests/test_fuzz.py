"""Mutated inputs are read, or refused in one sentence; ``benchmarks/fuzz.py`` does so with thousands of them."""

import shutil
import sys

import fuzz
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A valid file of every kind, and the models."""
    place = tmp_path_factory.mktemp("fuzz")
    fuzz.prepare(place, list(fuzz.KINDS))
    return place


def test_every_kind_is_read_as_it_is(folder):
    """Else its mutations would be refused for a reason of their own."""
    found = [fuzz.run_one(folder, 0, -1, kind, commands=1) for kind in fuzz.KINDS]
    assert [(one.kind, one.words) for one in found if one.what != "read"] == []


def test_mutated_inputs_are_read_or_refused_in_one_sentence(folder):
    found = [fuzz.run_one(folder, 7, number, kind, commands=1) for number, kind in enumerate(fuzz.KINDS)]
    assert [(one.kind, one.what, one.words) for one in found if one.what not in ("read", "refused")] == []
    assert {one.what for one in found} == {"read", "refused"}


def test_what_is_neither_is_seen(monkeypatch):
    """A defect, several lines, a sentence that is too long."""
    for said, code in (("error: bad\nmore\n", 2), ("", 2), ("error: " + "x" * 600, 2), ("Traceback (most", 0), ("", 1)):
        assert _judged(monkeypatch, said, code) == "traceback"
    assert _judged(monkeypatch, "note: x\nerror: bad: mend it\n", 2) == "refused"
    assert _judged(monkeypatch, "note: x\n", 0) == _judged(monkeypatch, "", 3) == "read"
    monkeypatch.setattr("medseg.cli.app.main", lambda words: 1 / 0)
    assert fuzz.judged(["info"])[0] == "traceback"


def _judged(monkeypatch, said, code):
    def main(words):
        sys.stderr.write(said)
        return code

    monkeypatch.setattr("medseg.cli.app.main", main)
    return fuzz.judged(["info"])[0]


def test_mutations_are_a_function_of_seed_and_number(folder, tmp_path):
    for kind in ("nii", "config"):
        contents = []
        for seed, name in ((3, "a"), (3, "b"), (4, "c")):
            place = tmp_path / f"{kind}-{name}"
            fuzz.mutated(folder / "seeds" / kind, place, kind, fuzz.rng_of(seed, 5))
            contents.append([path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()])
        assert contents[0] == contents[1] != contents[2]


FOUND = {
    "a step that is called by a list": ("steps", "steps.yaml", "name: remove_small", "name: [remove_small]"),
    "a file's name that no system takes": ("manifest.csv", "manifest.csv", "images/keep_a.nii", "i" + "(" * 5000),
    "half a character": ("dataset.json", "dataset.json", '"name": "x"', '"name": "x\\ud800"'),
    "a case that is called by a number": ("metrics.json", "one/metrics.json", '"case": "keep_a"', '"case": 5'),
}
"""What was found: the kind, the file, the text that was there, and what it became."""


@pytest.mark.parametrize("kind, name, text, other", FOUND.values(), ids=FOUND)
def test_what_was_found_stays_mended(folder, tmp_path, kind, name, text, other):
    place = tmp_path / "place"
    shutil.copytree(folder / "seeds" / kind, place)
    content = (place / name).read_text()
    assert text in content
    (place / name).write_text(content.replace(text, other))
    (command, *_) = fuzz.KINDS[kind].commands(place, tmp_path / "out")
    assert fuzz.judged(command)[0] in ("read", "refused")
