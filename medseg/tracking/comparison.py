"""What a comparison leaves behind: tables, the forest plot, and an MLflow run.

comparison.csv      one row a contrast
comparison.json     the same with the options, the notes and the cases that differ most
comparison.md       the same for readers
comparison.png      the forest plot
cases.csv           both scores and their difference, one row a contrast and case
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import medseg
from medseg.errors import OutputError
from medseg.evaluation.comparison import Comparison, Contrast
from medseg.evaluation.comparison_table import column_of, headline, label_of, most_different, sentence_of
from medseg.evaluation.paired import ALPHA
from medseg.evaluation.score_table import ScoreTable
from medseg.files import partial_of
from medseg.tracking.forest import plot_forest
from medseg.tracking.run import Run
from medseg.tracking.store import Store
from medseg.tracking.table import Column, as_csv, as_json, as_markdown

CSV, JSON, MARKDOWN, PICTURE, CASES = (
    "comparison.csv",
    "comparison.json",
    "comparison.md",
    "comparison.png",
    "cases.csv",
)
FILES = (CSV, JSON, MARKDOWN, PICTURE, CASES)
MOST_CASES = 5
"""Of each contrast, in JSON, those that differ most."""
EXPERIMENT = "comparisons"
"""MLflow's experiment where none is named and nothing compared is a run."""

COLUMNS = (
    Column("first", "{}", ("first",)),
    Column("second", "{}", ("second",)),
    Column("metric", "{}", ("metric",)),
    Column("label", "{}", ("label",)),
    Column("cases", "{}", ("cases",)),
    Column("undefined", "{}", ("undefined",)),
    Column("first's mean", "{:.4g}", ("first_mean",)),
    Column("second's mean", "{:.4g}", ("second_mean",)),
    Column("difference", "{:+.4g}", ("difference",)),
    Column("95 % interval", "{:+.4g}", ("low", "high"), " to "),
    Column("SD", "{:.4g}", ("sd",)),
    Column("p", "{:.2g}", ("p",)),
    Column("p (Holm)", "{:.2g}", ("p_holm",)),
    Column("rank-biserial", "{:+.2f}", ("rank_biserial",)),
    Column("dz", "{:+.2f}", ("dz",)),
    Column("won/tied/lost", "{}", ("wins", "ties", "losses"), "/"),
    Column("better", "{}", ("better",)),
    Column("claim", "{}", ("claim",)),
)
CASE_COLUMNS = tuple(
    Column(key.replace("_", "'s "), form, (key,))
    for form, keys in (
        ("{}", ("first", "second", "metric", "label", "case")),
        ("{:.4g}", ("first_value", "second_value")),
        ("{:+.4g}", ("difference",)),
    )
    for key in keys
)


def write_comparison(comparison: Comparison, folder: Path, overwrite: bool = False) -> None:
    """Writes the files of a comparison beside the folder, then puts them into it.

    Raises:
        OutputError: where the folder holds a comparison already and is not to be overwritten, or cannot be written.
    """
    check_free(folder, overwrite)
    beside = partial_of(folder)
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _write(comparison, beside)
        folder.mkdir(exist_ok=True)
        for name in FILES:
            (beside / name).replace(folder / name)
        beside.rmdir()
    except OSError as problem:
        raise OutputError(f"{folder} cannot be written: {problem.strerror or problem}") from problem


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds a comparison already, unless it is to be overwritten.

    Raises:
        OutputError: with the file's name.
    """
    if folder.is_file():
        raise OutputError(f"{folder} is a file: give a folder for the comparison")
    taken = [folder / name for name in FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists: choose another folder, or replace it with --overwrite")


def _write(comparison: Comparison, folder: Path) -> None:
    rows = rows_of(comparison)
    (folder / CSV).write_text(as_csv(rows, COLUMNS), "utf-8")
    (folder / JSON).write_text(as_text(comparison), "utf-8")
    (folder / MARKDOWN).write_text(markdown(comparison), "utf-8")
    (folder / CASES).write_text(as_csv(case_rows(comparison), CASE_COLUMNS), "utf-8")
    plot_forest(comparison, folder / PICTURE)


def rows_of(comparison: Comparison) -> list[dict[str, Any]]:
    """One for each contrast, with the columns of ``comparison.csv``."""
    return [_row(contrast) for contrast in comparison.contrasts]


def _row(contrast: Contrast) -> dict[str, Any]:
    found = contrast.paired
    first, second = (float(values.mean()) if values.size else math.nan for values in contrast.values)
    return _key(contrast) | {
        "cases": found.n,
        "undefined": contrast.undefined,
        "first_mean": first,
        "second_mean": second,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "sd": found.sd,
        "p": found.p,
        "p_holm": contrast.p_holm,
        "rank_biserial": contrast.rank_biserial,
        "dz": contrast.dz,
        "wins": contrast.wins,
        "ties": found.zero,
        "losses": contrast.losses,
        "better": contrast.measure.better,
        "claim": contrast.verdict,
    }


def as_text(comparison: Comparison) -> str:
    """The JSON of ``comparison.json``: the rows, each with the cases that differ most, and what they are of."""
    rows = [
        _row(contrast) | {"differ_most": [_case(*case) for case in contrast.differ_most(MOST_CASES)]}
        for contrast in comparison.contrasts
    ]
    return as_json(rows, about(comparison))


def _case(name: str, first: float, second: float) -> dict[str, Any]:
    return {"case": name, "first_value": first, "second_value": second, "difference": second - first}


def case_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One for each contrast and case that is defined in both, with the columns of ``cases.csv``."""
    return [
        _row_of_case(contrast, case, *values)
        for contrast in comparison.contrasts
        for case, values in zip(contrast.cases, contrast.values.T.tolist(), strict=True)
    ]


def _row_of_case(contrast: Contrast, case: str, first: float, second: float) -> dict[str, Any]:
    return _key(contrast) | _case(case, first, second)


def _key(contrast: Contrast) -> dict[str, Any]:
    return {
        "first": contrast.first,
        "second": contrast.second,
        "metric": column_of(contrast),
        "label": label_of(contrast),
    }


def about(comparison: Comparison) -> dict[str, Any]:
    """What the rows are of, as JSON."""
    asked = comparison.asked
    return {
        "medseg": medseg.__version__,
        "compared": [_identity(scores) for scores in comparison.compared],
        "cases": len(comparison.cases),
        "comparisons": comparison.made,
        "alpha": ALPHA,
        "test": "Wilcoxon signed-rank, two-sided, zeros left out, Holm",
        "interval": {"kind": "bootstrap BCa", "level": 1 - ALPHA, "resamples": asked.resamples, "seed": asked.seed},
        "options": {
            "all_pairs": asked.all_pairs,
            "over_labels": asked.over_labels,
            "common_cases": asked.common_cases,
            "different_references": asked.different_references,
        },
        "notes": list(comparison.notes),
    }


def _identity(scores: ScoreTable) -> dict[str, Any]:
    return {"name": scores.name, "run_id": scores.run, "step": scores.step, "digest": scores.digest}


def markdown(comparison: Comparison) -> str:
    """The comparison for readers: what is claimed, the table, and the cases that differ most."""
    claims = [f"- {sentence_of(c)}\n" for c in comparison.contrasts if c.claimed]
    notes = [f"- {note}\n" for note in comparison.notes]
    cases = [_row_of_case(contrast, *case) for contrast, case in most_different(comparison)]
    parts = [
        f"**{headline(comparison)}.**\n",
        "".join(claims),
        as_markdown(rows_of(comparison), COLUMNS),
        f"Difference: second less first. Rank-biserial and dz are above 0 where the second is better. A claim needs a "
        f"corrected p of at most {ALPHA}.\n",
        "".join(notes),
        "**Cases that differ most**\n" if cases else "",
        as_markdown(cases, CASE_COLUMNS) if cases else "",
    ]
    return "\n".join(part for part in parts if part)


def begin_run(comparison: Comparison, store: Store, experiment: str, folder: Path | None = None) -> Run:
    """Begins the comparison's own run, with what is compared as tags.

    Args:
        comparison: of what.
        store: where the run goes.
        experiment: MLflow's.
        folder: where the comparison is written, which keeps the run too; None where it is not.

    Raises:
        MedsegError: where the store cannot be used; without a folder, where it does not answer.
    """
    first, *others = (scores.name for scores in comparison.compared)
    name = f"{others[0] if len(others) == 1 else f'{len(others)} models'} against {first}"
    tags = _tags(comparison)
    return Run.start(store, experiment, name, _params(comparison), tags, folder, alike=tuple(tags))


def _params(comparison: Comparison) -> dict[str, Any]:
    kept = {key: value for key, value in about(comparison).items() if key not in ("notes", "compared", "medseg")}
    return kept | {"metrics": list(dict.fromkeys(column_of(contrast) for contrast in comparison.contrasts))}


def _tags(comparison: Comparison) -> dict[str, str]:
    tags = {"medseg.kind": "comparison", "compared": ", ".join(scores.name for scores in comparison.compared)}
    for number, scores in enumerate(comparison.compared, 1):
        known = {key: value for key, value in _identity(scores).items() if value is not None}
        tags |= {f"compared.{number}.{key}": str(value) for key, value in known.items()}
    datasets = {scores.dataset for scores in comparison.compared}
    same = datasets.pop() if len(datasets) == 1 else None
    return tags | ({"dataset.digest": same} if same else {})


def log_comparison(comparison: Comparison, run: Run, folder: Path) -> None:
    """Logs what :func:`write_comparison` wrote to a folder: description, figures, tables and files."""
    run.description(markdown(comparison))
    run.results(_metrics(comparison))
    run.table("comparison", rows_of(comparison))
    run.table("cases", case_rows(comparison))
    for name in FILES:
        run.artifact(folder / name)


def _metrics(comparison: Comparison) -> dict[str, float]:
    """What MLflow's table of runs can sort by."""
    several = len(comparison.compared) > 2
    values: dict[str, float] = {
        "comparisons": comparison.made,
        "claims": sum(contrast.claimed for contrast in comparison.contrasts),
    }
    for contrast in comparison.contrasts:
        pair = f"/{contrast.second} against {contrast.first}" if several else ""
        where = f"{column_of(contrast)}/{label_of(contrast)}{pair}"
        values |= {f"difference/{where}": contrast.paired.mean, f"p_holm/{where}": contrast.p_holm}
    return values
