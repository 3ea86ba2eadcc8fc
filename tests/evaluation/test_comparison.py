"""What is compared, what is refused, and that the numbers are those of the scores."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.facts import facts_of
from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.evaluation.comparison import MEAN, Asked, compare
from medseg.evaluation.comparison_table import cases_of, headline, sentence_of, table_of
from medseg.evaluation.evaluate import Wanted, evaluate
from medseg.evaluation.paired import ALPHA
from medseg.evaluation.score_table import WHOLE, Measure, ScoreTable, read_report, scores_of_rows

MEASURES = {
    "dice": Measure("dice", "dice", "higher"),
    "hd95_mm": Measure("hd95_mm", "hd95", "lower"),
    "volume_difference_mm3": Measure("volume_difference_mm3", "volume_difference", "zero"),
}
FEW = Asked(resamples=99)


def scores(name: str, **columns: object) -> ScoreTable:
    """Of one label per column «metric__label» or, without a label, of «organ»; a list has one value a case."""
    values = {}
    for key, found in columns.items():
        column, _, label = key.partition("__")
        table = found if isinstance(found, dict) else {f"case{i}": float(v) for i, v in enumerate(found)}
        values[column, label or "organ"] = {case: v for case, v in table.items() if math.isfinite(v)}
    cases = tuple(dict.fromkeys(case for table in columns.values() for case in _cases(table)))
    return ScoreTable(name, cases, {column: MEASURES[column] for column, _ in values}, values)


def _cases(table: object) -> list[str]:
    return list(table) if isinstance(table, dict) else [f"case{i}" for i, _ in enumerate(table)]


def planted(n: int = 14, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.uniform(0.3, 0.9, n)
    return first, np.clip(first + rng.normal(0.04, 0.05, n), 0, 1)


def shown(*renderables: object, width: int = 160) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width)
    for renderable in renderables:
        console.print(renderable)
    return text.getvalue()


def test_the_statistics_of_planted_scores_are_scipys() -> None:
    first, second = planted()
    (found,) = compare([scores("a", dice=first), scores("b", dice=second)], Asked(seed=5)).contrasts
    d = second - first
    assert found.paired.mean == pytest.approx(d.mean())
    assert found.paired.p == pytest.approx(stats.wilcoxon(second, first).pvalue) == pytest.approx(found.p_holm)
    assert found.paired.sd == pytest.approx(d.std(ddof=1)) and found.dz == pytest.approx(d.mean() / d.std(ddof=1))
    interval = stats.bootstrap((d,), np.mean, rng=np.random.default_rng(5)).confidence_interval
    assert (found.paired.low, found.paired.high) == pytest.approx((interval.low, interval.high))
    assert (found.wins, found.paired.zero, found.losses) == ((d > 0).sum(), 0, (d < 0).sum())


def test_which_way_is_better_turns_wins_and_effects_but_no_difference() -> None:
    first, second = planted()
    up, down = compare(
        [scores("a", dice=first, hd95_mm=first), scores("b", dice=second, hd95_mm=second)], FEW
    ).contrasts
    assert up.paired == down.paired and up.p_holm == down.p_holm
    assert (up.wins, up.losses, up.dz, up.rank_biserial) == (down.losses, down.wins, -down.dz, -down.rank_biserial)
    assert {up.verdict, down.verdict} == {"better", "worse"}


def test_of_signed_values_the_magnitudes_are_compared() -> None:
    tables = [
        scores("a", volume_difference_mm3=[-9, 8, -7, 9, 8, 7, 9]),
        scores("b", volume_difference_mm3=[1, -2] * 3 + [0]),
    ]
    (found,) = compare(tables, FEW).contrasts
    assert found.values.min() == 0 and found.wins == 7 and found.verdict == "better"
    assert "|volume difference (mm³)|" in shown(table_of(compare(tables, FEW)))


def test_swapping_the_two_turns_everything_round() -> None:
    tables = [scores("a", dice=planted()[0]), scores("b", dice=planted()[1])]
    (there,), (back,) = compare(tables, FEW).contrasts, compare(tables[::-1], FEW).contrasts
    assert there.paired.p == back.paired.p and there.dz == -back.dz
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert (there.verdict, back.verdict) in (("better", "worse"), ("", ""))


def test_cases_are_paired_by_name_not_by_place() -> None:
    first, second = planted(8)
    turned = {f"case{i}": second[i] for i in reversed(range(8))}
    straight = compare([scores("a", dice=first), scores("b", dice=second)], FEW).contrasts[0]
    assert compare([scores("a", dice=first), scores("b", dice=turned)], FEW).contrasts[0].paired == straight.paired


def test_undefined_pairs_are_left_out_and_counted() -> None:
    first, second = planted(10)
    holes = second.copy()
    holes[[1, 4]] = math.nan
    comparison = compare([scores("a", dice=first), scores("b", dice=holes)], FEW)
    (found,) = comparison.contrasts
    kept = np.isfinite(holes)
    assert (found.paired.n, found.undefined) == (8, 2)
    assert found.paired.p == pytest.approx(stats.wilcoxon(holes[kept], first[kept]).pvalue)
    assert any("leave out up to 2 of 10 cases" in note for note in comparison.notes)


def test_where_no_pair_is_defined_nothing_is_compared() -> None:
    with pytest.raises(MedsegError, match="dice is undefined in one or the other in each of 2 cases"):
        compare([scores("a", dice=[0.1, math.nan]), scores("b", dice=[math.nan, 0.2])], FEW)


def test_all_comparisons_are_corrected_together() -> None:
    tables = [scores(n, dice__x=planted(12, i)[1], dice__y=planted(12, i + 9)[0]) for i, n in enumerate("abc")]
    against_first, every = compare(tables, FEW), compare(tables, replace(FEW, all_pairs=True))
    assert [(c.first, c.second) for c in against_first.contrasts] == [("a", "b")] * 2 + [("a", "c")] * 2
    assert [(c.first, c.second) for c in every.contrasts[4:]] == [("b", "c")] * 2
    assert (against_first.made, every.made) == (4, 6)
    for comparison in (against_first, every):
        least = min(comparison.contrasts, key=lambda c: c.paired.p)
        assert least.p_holm == pytest.approx(min(1, least.paired.p * comparison.made))


def test_the_mean_over_labels_takes_those_that_are_defined_in_both() -> None:
    first = scores("a", dice__x=[0.2, 0.4, 0.6], dice__y=[0.8, math.nan, math.nan])
    second = scores("b", dice__x=[0.3, 0.5, math.nan], dice__y=[0.9, 0.1, 0.7])
    (found,) = compare([first, second], replace(FEW, over_labels=True)).contrasts
    assert found.label == MEAN and found.cases == ("case0", "case1") and found.undefined == 1
    assert found.values == pytest.approx(np.array([[0.5, 0.4], [0.6, 0.5]]))


def test_the_cases_that_differ_most_come_first() -> None:
    comparison = compare([scores("a", dice=[0.5] * 4), scores("b", dice=[0.6, 0.1, 0.5, 0.9])], FEW)
    assert [case for case, _, _ in comparison.contrasts[0].differ_most(9)] == ["case1", "case3", "case0"]
    assert shown(cases_of(comparison)).index("case1") < shown(cases_of(comparison)).index("case3")


def test_few_cases_can_claim_nothing_and_that_is_said() -> None:
    def told(n: int, **more: object) -> tuple[bool, bool]:
        better = {"dice": np.arange(n) / 9 + 1, **{key: np.arange(n) / 7 + 1 for key in more}}
        worse = {key: np.zeros(n) for key in better}
        comparison = compare([scores("a", **worse), scores("b", **better)], FEW)
        return any("can be claimed" in note for note in comparison.notes), any(c.claimed for c in comparison.contrasts)

    assert told(5) == (True, False) and told(6) == (False, True)
    assert told(6, hd95_mm=0) == (True, False) and told(7, hd95_mm=0) == (False, True)
    equal = compare([scores("a", dice=[0.5] * 20), scores("b", dice=[0.5] * 20)], FEW)
    assert any("of 20 cases 0 differ" in note for note in equal.notes) and not equal.contrasts[0].claimed


def test_a_claim_where_ranks_and_mean_disagree_takes_no_side() -> None:
    d = np.array([0.01, 0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017, 0.018, 0.019, 0.02, -0.6])
    (found,) = compare([scores("a", dice=np.full(12, 0.7)), scores("b", dice=0.7 + d)], FEW).contrasts
    assert found.claimed and found.paired.mean < 0 < found.rank_biserial and found.verdict == "differs"


def test_other_cases_are_listed_and_refused_unless_told() -> None:
    tables = [scores("a", dice=[0.1, 0.2, 0.3]), scores("b", dice={"case0": 0.1, "case2": 0.4, "other": 0.5})]
    with pytest.raises(MedsegError, match="a lacks other; b lacks case1; --common-cases compares the 2"):
        compare(tables, FEW)
    comparison = compare(tables, replace(FEW, common_cases=True))
    assert comparison.cases == ("case0", "case2") and "b lacks case1" in comparison.notes[0]
    with pytest.raises(MedsegError, match="no case is in all"):
        compare([tables[0], scores("c", dice={"x": 0.1})], replace(FEW, common_cases=True))


def test_other_references_are_listed_and_refused_unless_told() -> None:
    def against(name: str, **voxels: int) -> ScoreTable:
        table = scores(name, dice=dict.fromkeys(voxels, 0.5))
        return replace(table, references={case: {"organ": count} for case, count in voxels.items()})

    same = compare([against("a", x=10, y=20), against("b", x=10, y=20)], FEW)
    assert not any("references" in note for note in same.notes)
    tables = [against("a", x=10, y=20), against("b", x=10, y=21)]
    with pytest.raises(MedsegError, match=r"1 case differs: y \(organ: 20 and 21 voxels\); --different-references"):
        compare(tables, FEW)
    assert "other references" in compare(tables, replace(FEW, different_references=True)).notes[0]
    one = Digest(voxels="0", grid="0")
    digests = [
        replace(t, reference_digests={"x": one, "y": Digest(voxels=d, grid="0")})
        for t, d in zip(tables, "01", strict=True)
    ]
    with pytest.raises(MedsegError, match=r"1 case differs: y \(organ: 20 and 21 voxels\)"):
        compare(digests, FEW)
    moved = [replace(against(t.name, x=10, y=20), reference_digests=t.reference_digests) for t in digests]
    with pytest.raises(MedsegError, match=r"1 case differs: y \(other voxels\); --different-references"):
        compare(moved, FEW)
    assert compare([moved[0], replace(moved[1], reference_digests=moved[0].reference_digests)], FEW)
    elsewhere = replace(moved[1], reference_digests={"x": one, "y": Digest(voxels="0", grid="1")})
    with pytest.raises(MedsegError, match=r"1 case differs: y \(the same voxels elsewhere: another affine or unit\)"):
        compare([moved[0], elsewhere], FEW)
    older = replace(moved[1], reference_digests={"x": one, "y": Digest(voxels="0", grid="")})
    assert compare([moved[0], older], FEW), "of older reports the voxels alone are known"
    assert compare([moved[0], replace(moved[1], reference_digests={})], FEW), "older reports tell by counts"
    unknown = compare([scores("a", dice=[0.1]), scores("b", dice=[0.2])], FEW)
    assert any("is not known" in note for note in unknown.notes)
    assert compare([replace(t, dataset=t.name) for t in [tables[0], replace(tables[0], name="c")]], FEW)
    datasets = [replace(scores(n, dice=[0.1]), dataset=f"{n}" * 20) for n in "ab"]
    with pytest.raises(MedsegError, match="aaaaaaaaaaaa and bbbbbbbbbbbb"):
        compare(datasets, FEW)
    assert (
        len({note for note in compare([datasets[0], replace(datasets[0], name="c")], FEW).notes if "refer" in note})
        == 0
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(metrics=["dics"]), "a has no dics; did you mean 'dice'"),
        (Asked(metrics=["hd95"]), "b has no hd95.*it has dice"),
        (Asked(labels=["organs"]), "a has no label 'organs'; did you mean 'organ'"),
    ],
)
def test_what_is_missing_is_named(asked: Asked, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        compare([scores("a", dice=[0.1], hd95_mm=[1]), scores("b", dice=[0.2])], asked)


def test_one_is_none_to_compare_and_other_labels_must_be_named() -> None:
    one, other = scores("a", dice__x=[0.1], dice__y=[0.1]), scores("b", dice__x=[0.2])
    with pytest.raises(MedsegError, match="needs two"):
        compare([one], FEW)
    with pytest.raises(MedsegError, match="a has x, y and b x; name those"):
        compare([one, other], FEW)
    assert len(compare([one, other], replace(FEW, labels=["x"])).contrasts) == 1


def nifti(folder: Path, **masks: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        nib.save(nib.Nifti1Image(mask, np.diag([1, 1, 2, 1])), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of two models on seven volumes; the last has no «y» and no prediction of «b»."""
    root = tmp_path_factory.mktemp("reports")
    rng = np.random.default_rng(0)
    references = {f"case{i}": rng.integers(0, 3, (6, 5, 4)).astype(np.uint8) for i in range(7)}
    references["case6"][references["case6"] == 2] = 0
    nifti(root / "r", **references)
    labels = Labels({"background": 0, "x": 1, "y": 2})
    for name, share in (("a", 0.4), ("b", 0.1)):
        wrong = {c: np.where(rng.random(r.shape) < share, 0, r).astype(np.uint8) for c, r in references.items()}
        wrong["case6"][0, 0, 0] = 2
        if name == "b":
            del wrong["case6"]
        wanted = Wanted(tolerance={"x": 1.0, "y": 2.0})
        evaluate(nifti(root / name, **wrong), root / "r", labels, root / "out" / name, wanted=wanted)
    return root


def test_reports_are_compared_as_they_were_written(reports: Path) -> None:
    tables = [read_report(reports / "out" / name / "metrics.json", name) for name in "ab"]
    comparison = compare(tables, replace(FEW, metrics=["dice", "sensitivity", "case_pixel_error"]))
    assert [(c.measure.column, c.label) for c in comparison.contrasts] == [
        *(("dice", label) for label in "xy"),
        *(("sensitivity", label) for label in "xy"),
        ("case_pixel_error", WHOLE),
    ]
    content = json.loads((reports / "out" / "a" / "metrics.json").read_text())
    dice = comparison.contrasts[0]
    assert list(dice.values[0]) == [case["labels"]["x"]["dice"] for case in content["cases"]]
    assert dice.values[1, -1] == 0, "a missing prediction scores the worst"
    undefined = comparison.contrasts[3]
    assert undefined.undefined == 1 and "case6" not in undefined.cases
    assert comparison.contrasts[-1].measure.better == "lower"
    assert any("b has no prediction of 1 cases" in note for note in comparison.notes)
    assert [c.measure.metric for c in compare(tables, FEW).contrasts[::2]] == ["dice", "nsd", "hd95"]


def test_references_go_by_the_digests_of_scans_in_a_report_of_inference(reports: Path, tmp_path: Path) -> None:
    content = json.loads((reports / "out" / "a" / "metrics.json").read_text())
    for case in content["cases"]:
        digest = Digest.of(facts_of(reports / "r" / f"{case['case']}.nii.gz", "label"))
        assert digest is not None and case["reference_digest"] == digest.model_dump()
        case["reference_digest"] = digest.voxels  # as older reports have it
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    tables = [read_report(path / "metrics.json", path.name) for path in (tmp_path, reports / "out" / "b")]
    assert not any("references" in note for note in compare(tables, FEW).notes)


def test_one_metric_with_another_tolerance_is_another_metric(reports: Path) -> None:
    a, b = (read_report(reports / "out" / name / "metrics.json", name) for name in "ab")
    other = replace(b, settings={**b.settings, "tolerance": {"x": 1.0, "y": 3.0}})
    with pytest.raises(MedsegError, match=r"nsd does not mean the same.*x=1.0, y=2.0.*x=1.0, y=3.0"):
        compare([a, other], FEW)
    assert compare([a, other], replace(FEW, labels=["x"])).made == 3
    assert compare([a, other], replace(FEW, metrics=["dice"])).made == 2


def test_other_units_are_told(reports: Path) -> None:
    a = read_report(reports / "out" / "a" / "metrics.json", "a")
    column = "hd95_voxels"
    values = {(column if c == "hd95_mm" else c, label): table for (c, label), table in a.values.items()}
    measures = {m.column: m for m in a.measures.values() if m.metric != "hd95"} | {
        column: Measure(column, "hd95", "lower")
    }
    b = replace(a, name="b", values=values, measures=measures)
    with pytest.raises(MedsegError, match=r"not in the same unit.*hd95_mm.*hd95_voxels"):
        compare([a, b], replace(FEW, metrics=["hd95"]))
    assert {c.measure.metric for c in compare([a, b], FEW).contrasts} == {"dice", "nsd"}


@pytest.mark.parametrize("content", ["[]", "{}", '{"cases": [{"case": 1}]}', '{"cases": [], "labels": 3}', "no json"])
def test_what_is_no_report_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(MedsegError, match=r"metrics\.json"):
        read_report(tmp_path / "metrics.json", "a")


def test_a_table_of_validations_becomes_scores() -> None:
    rows = [
        {"step": 3, "case": "p", "loss": 0.5, "dice/a b": 0.25},
        {"step": 3, "case": "q", "loss": 0.4, "dice/a b": None},
    ]
    table = scores_of_rows(rows, "run")
    assert table.cases == ("p", "q") and table.labels == ("a b",)
    assert table.values == {("loss", WHOLE): {"p": 0.5, "q": 0.4}, ("dice", "a b"): {"p": 0.25}}
    assert (table.measures["loss"].better, table.measures["dice"].better) == ("lower", "higher")


def test_the_terminal_shows_names_as_they_are() -> None:
    first, second = planted()
    comparison = compare([scores("[red]a", dice__x=first), scores("b", dice__x=second)], FEW)
    for width in (80, 160):
        text = shown(table_of(comparison, width), cases_of(comparison), width=width)
        for word in ("[red]a", "dice", "x", "p (Holm)", f"{comparison.contrasts[0].paired.mean:+.4f}", "w/t/l", "95%"):
            assert word in text
    assert "1 comparisons" in headline(comparison) and "b is" in sentence_of(comparison.contrasts[0])


def test_where_nothing_differs_one_comparison_in_twenty_claims_something() -> None:
    """Whole comparisons of three metrics, within what chance allows of 200."""
    simulations, claims = 200, 0
    rng = np.random.default_rng(1)
    for _ in range(simulations):
        hard = rng.normal(0, 1, (3, 20))
        values = [hard + rng.normal(0, 0.5, (3, 20)) for _ in range(2)]
        tables = [scores(n, dice__x=v[0], dice__y=v[1], hd95_mm__x=v[2]) for n, v in zip("ab", values, strict=True)]
        claims += any(c.claimed for c in compare(tables, Asked(resamples=9)).contrasts)
    low, high = stats.binom(simulations, ALPHA).ppf([0.0005, 0.9995])
    assert low <= claims <= high
