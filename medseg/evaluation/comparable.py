"""Whether scores can be compared: the same metrics, labels, cases, references and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medseg.datasets.checks.digest import Digest
from medseg.errors import MedsegError, nearest, some
from medseg.evaluation.catalogue import METRICS, Family
from medseg.evaluation.score_table import Measure, ScoreTable

PRIMARY = ("dice", "nsd", "hd95", "lesion_f1", "v_rand_thin", "v_info_thin", "ap", "pq", "brier")
"""What is compared unasked, of what was scored: few, since every comparison makes every claim harder."""
SETTINGS: Mapping[Family, str] = {"lesions": "overlap", "segments": "segments", "thin": "segments"}
"""The setting that says what a family's numbers mean."""

Pair = tuple[ScoreTable, ScoreTable]


def common_measures(compared: Sequence[ScoreTable], wanted: Sequence[str] | None) -> list[Measure]:
    """What is to be compared.

    Args:
        compared: the scores.
        wanted: names of metrics or columns; None for those of :data:`PRIMARY` that all have, else whatever all have.

    Raises:
        MedsegError: where nothing is common, or something wanted is missing in one, or in another unit.
    """
    if wanted is not None:
        return list(dict.fromkeys(m for name in wanted for m in _wanted(compared, name)))
    common = [c for c in compared[0].measures if all(c in scores.measures for scores in compared)]
    if not common:
        raise MedsegError(
            f"nothing is scored in all: {'; '.join(f'{s.name} has {some(s.measures)}' for s in compared)}"
        )
    measures = [compared[0].measures[column] for column in common]
    return sorted((m for m in measures if m.metric in PRIMARY), key=lambda m: PRIMARY.index(m.metric)) or measures


def _wanted(compared: Sequence[ScoreTable], name: str) -> list[Measure]:
    """The measures of one name that all have."""
    for scores in compared:
        if not scores.columns(name):
            known = [*dict.fromkeys(m.metric for m in scores.measures.values())]
            raise MedsegError(f"{scores.name} has no {name}{nearest(name, known)}; it has {some(known, 12)}")
    first = compared[0]
    for scores in compared[1:]:
        if set(scores.columns(name)) != set(first.columns(name)):
            raise MedsegError(
                f"{name} is not in the same unit in all: {first.name} has {some(first.columns(name))} and "
                f"{scores.name} {some(scores.columns(name))}"
            )
    return [first.measures[column] for column in first.columns(name)]


def common_labels(compared: Sequence[ScoreTable], wanted: Sequence[str] | None) -> list[str]:
    """The labels to be compared.

    Args:
        compared: the scores.
        wanted: names of labels; None for all.

    Raises:
        MedsegError: where one that is wanted is missing in one, or the labels differ and none is wanted.
    """
    for scores in compared:
        for label in wanted or ():
            if label not in scores.labels:
                raise MedsegError(
                    f"{scores.name} has no label {label!r}{nearest(label, scores.labels)}; it has {some(scores.labels)}"
                )
    first = compared[0]
    for scores in compared[1:] if wanted is None else ():
        if set(scores.labels) != set(first.labels):
            raise MedsegError(
                f"the labels differ: {first.name} has {some(first.labels)} and {scores.name} {some(scores.labels)}; "
                "name those that are to be compared with --labels"
            )
    return list(dict.fromkeys(wanted)) if wanted is not None else list(first.labels)


def common_cases(compared: Sequence[ScoreTable], allowed: bool) -> tuple[tuple[str, ...], list[str]]:
    """The cases that all have, in the first's order, and a sentence about those left out.

    Args:
        compared: the scores.
        allowed: whether cases may be left out.

    Raises:
        MedsegError: where not all have the same ones and that is not allowed, or none is common.
    """
    union = list(dict.fromkeys(case for scores in compared for case in scores.cases))
    cases = tuple(case for case in union if all(case in scores.cases for scores in compared))
    lacking = {s.name: [case for case in union if case not in s.cases] for s in compared}
    listed = "; ".join(f"{name} lacks {some(names)}" for name, names in lacking.items() if names)
    if not cases:
        raise MedsegError(f"no case is in all: {'; '.join(f'{s.name} has {some(s.cases)}' for s in compared)}")
    if listed and not allowed:
        raise MedsegError(f"the cases differ: {listed}; --common-cases compares the {len(cases)} that all have")
    return cases, [f"only the {len(cases)} cases that all have are compared: {listed}"] if listed else []


def check_references(pairs: Sequence[Pair], cases: Sequence[str], labels: Sequence[str], allowed: bool) -> list[str]:
    """Finds out whether the scores are against the same references, as far as is known.

    Returns:
        a sentence about each pair that differs, or that cannot be checked.

    Raises:
        MedsegError: where references differ and that is not allowed.
    """
    notes = []
    for first, second in pairs:
        names = f"{first.name} and {second.name}"
        found = _differing(first, second, cases, labels)
        if found is None:
            notes.append(f"whether the references of {names} are the same is not known")
        elif found and not allowed:
            raise MedsegError(f"{names} were scored against other references: {found}; --different-references goes on")
        elif found:
            notes.append(f"{names} were scored against other references: {found}")
    return notes


def _differing(first: ScoreTable, second: ScoreTable, cases: Sequence[str], labels: Sequence[str]) -> str | None:
    """How the references of two differ; nothing where they don't, None where that is not known."""
    digests, others = first.reference_digests, second.reference_digests
    told = [case for case in cases if case in digests and case in others]
    both = [case for case in cases if case in first.references and case in second.references and case not in told]
    if not both and not told and first.dataset is not None and second.dataset is not None:
        same = first.dataset == second.dataset
        return "" if same else f"the digests of their data sets are {first.dataset[:12]} and {second.dataset[:12]}"
    if not both and not told:
        return None
    moved = {case: how for case in told if (how := _moved(digests[case], others[case]))}
    counted = {case: _counts(first, second, case, labels) for case in (*moved, *both)}
    found = [entry for case in both for entry in counted[case]]
    found += [entry for case, how in moved.items() for entry in counted[case] or [f"{case} ({how})"]]
    number = len({entry.partition(" (")[0] for entry in found})
    return f"{number} case{'s differ' if number > 1 else ' differs'}: {some(found)}" if found else ""


def _moved(first: Digest, second: Digest) -> str:
    """How a reference differs from another; nothing where it doesn't."""
    if first.voxels != second.voxels:
        return "other voxels"
    known = first.grid and second.grid  # older reports don't tell where voxels lie
    return "the same voxels elsewhere: another affine or unit" if known and first.grid != second.grid else ""


def _counts(first: ScoreTable, second: ScoreTable, case: str, labels: Sequence[str]) -> list[str]:
    """A case's labels whose references have other numbers of voxels."""
    return [
        f"{case} ({label}: {a} and {b} voxels)"
        for label in labels
        if (a := first.references.get(case, {}).get(label)) != (b := second.references.get(case, {}).get(label))
    ]


def check_settings(pairs: Sequence[Pair], measures: Sequence[Measure], labels: Sequence[str]) -> None:
    """Refuses numbers of one name that mean something else: another tolerance, another way to match.

    Raises:
        MedsegError: with both settings.
    """
    for first, second in pairs:
        for measure in measures if first.settings and second.settings else ():
            (what, a), (_, b) = (_setting(scores, measure, labels) for scores in (first, second))
            if a != b:
                raise MedsegError(
                    f"{measure.metric} does not mean the same: {first.name} was scored with {what} {a} and "
                    f"{second.name} with {b}; evaluate again, or compare other metrics with --metrics"
                )


def _setting(scores: ScoreTable, measure: Measure, labels: Sequence[str]) -> tuple[str, object]:
    """The setting that a measure depends on, and its value."""
    if measure.metric == "nsd":
        tolerances = scores.settings.get("tolerance", {})
        return "tolerance", ", ".join(f"{label}={tolerances.get(label)}" for label in labels)
    metric = METRICS.get(measure.metric)
    key = SETTINGS.get(metric.family, "") if metric is not None else ""
    return key, scores.settings.get(key)
