"""Finding the scores that a word on the command line means: a report's folder, a run's folder, a run in MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medseg.errors import MedsegError, nearest
from medseg.evaluation.report import JSON
from medseg.evaluation.score_table import ScoreTable, read_report, scores_of_rows
from medseg.files import read_json
from medseg.package import MODEL, read_card
from medseg.tracking.courier import RUN
from medseg.tracking.store import Store, reason_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REVIEW = f"validation/{JSON}"
"""Where its folder, and MLflow, keep what its best weights scored on the validation cases."""
CARD = f"model/{MODEL}"
"""Where they keep the card of these weights."""
TABLE = "tables/validation.json"
"""Where MLflow keeps the Dice of every validation."""
MOST_RUNS = 1000


@dataclass(frozen=True)
class Found:
    """Scores, and where the run that they are of is tracked; nowhere for an evaluation's report."""

    scores: ScoreTable
    store: Store | None = None

    def experiment(self) -> str | None:
        """The name of the run's experiment; None for a report.

        Raises:
            MedsegError: where the store does not know the run.
        """
        if self.store is None or self.scores.run is None:
            return None
        client = _client(self.store)
        run = _run(self.store, client, self.scores.run)
        return str(client.get_experiment(run.info.experiment_id).name)


def find_scores(words: Sequence[str], store: str | None = None) -> list[Found]:
    """The scores that each word means, with names that differ.

    Args:
        words: a folder that ``medseg evaluate -o`` wrote, or its ``metrics.json``; a run's folder, which means the
            validation that chose its weights; the id or the name of a run in the store.
        store: where runs that are no folder are looked for; None for the default one.

    Raises:
        MedsegError: for a word that is none of these, the same one twice, or scores that cannot be read.
    """
    names = _distinct(words)
    found = [_find(word, store) for word in words]
    return [replace(f, scores=replace(f.scores, name=name)) for f, name in zip(found, names, strict=True)]


def _distinct(words: Sequence[str]) -> list[str]:
    """Of each path the part that tells it apart: ``a/test`` and ``b/test`` are a and b."""
    parts = [_parts(word) for word in words]
    if len(set(parts)) < len(parts):
        twice = next(word for word, part in zip(words, parts, strict=True) if parts.count(part) > 1)
        raise MedsegError(f"{twice} is given twice: a comparison needs two that differ")
    while len({part[-1] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
        parts = [part[:-1] for part in parts]
    longest = max(len(part) for part in parts)
    taken = next(n for n in range(1, longest + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-taken:]) for part in parts]


def _parts(word: str) -> tuple[str, ...]:
    path = Path(word)
    if not path.exists():
        return (word,)
    path = path.resolve()
    return (path.parent if path.name == JSON else path).parts


def _find(word: str, store: str | None) -> Found:
    path = Path(word)
    if path.is_file() and path.name == JSON:
        return Found(read_report(path, word))
    if not path.is_dir():
        return _of_run(*search_run(word, Store.resolve(store)))
    if (path / JSON).is_file():
        return Found(read_report(path / JSON, word))
    if any((path / name).is_file() for name in (RUN, REVIEW)):
        return _of_folder(path)
    kept = (JSON, RUN, REVIEW)
    inside = [child.name for child in sorted(path.iterdir()) if any((child / name).is_file() for name in kept)]
    hint = f"; did you mean {path / inside[0]}?" if inside else ""
    raise MedsegError(
        f"{path} is neither a report ({JSON}, of medseg evaluate -o) nor a run's folder ({RUN}, of medseg train){hint}"
    )


def _of_folder(path: Path) -> Found:
    """The scores of a run's best weights on its validation cases; of one that no store has yet, its folder's."""
    if not (path / RUN).is_file():
        return Found(_of_review(path, None))
    place = read_json(path / RUN, "the run's place in MLflow")
    if not isinstance(place, dict) or not {"store", "run_id"} <= place.keys():
        raise MedsegError(f"{path / RUN} does not say where MLflow keeps the run: its keys are store and run_id")
    store, run_id = Store.resolve(str(place["store"])), str(place["run_id"])
    if (path / REVIEW).is_file():
        return Found(_of_review(path, run_id), store)
    client = _client(store)
    return _of_run(store, client, _run(store, client, run_id), path)


def _of_review(folder: Path, run_id: str | None) -> ScoreTable:
    training = _training(folder)
    scores = read_report(folder / REVIEW, run_id or folder.name)
    return replace(scores, run=run_id, step=training.get("step"), dataset=training.get("dataset_digest"))


def _client(store: Store) -> MlflowClient:
    """A client of a store that is there; none is made."""
    if store.database is not None and not store.database.exists():
        raise MedsegError(f"there is no tracking store at {store.database}: the run's scores were kept there")
    return store.client()


def _run(store: Store, client: MlflowClient, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as problem:
        why = reason_of(problem)
        raise MedsegError(f"the run {run_id} is not in the tracking store {store.shown} ({why})") from None


def search_run(word: str, store: Store) -> tuple[Store, MlflowClient, Run]:
    """A run of the store by its id or name; the latest of several of one name.

    Raises:
        MedsegError: where there is none, with the nearest.
    """
    path = Path(word)
    beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    if path.parent != Path() or (store.database is not None and not store.database.exists()):
        raise MedsegError(f"{word} does not exist{nearest(path.name, beside)}; give a folder that does")
    client = store.client()
    runs = _runs(store, client)
    found = [run for run in runs if word in (run.info.run_id, run.info.run_name)]
    if found:
        return store, client, found[0]
    known = [*beside, *(run.info.run_name for run in runs if run.info.run_name)]
    raise MedsegError(
        f"{word} is no folder here and no run in the tracking store {store.shown}{nearest(word, known)}; "
        "give a folder, or a run's id or name"
    )


def _runs(store: Store, client: MlflowClient) -> list[Run]:
    """The latest runs of all experiments."""
    with store.explained("does not give its runs"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, max_results=MOST_RUNS, order_by=["attributes.start_time DESC"]))


def _of_run(store: Store, client: MlflowClient, run: Run, folder: Path | None = None) -> Found:
    """The scores of a run's best weights; those of its last validation where no weights were kept.

    Args:
        store: the run's.
        client: of the store.
        run: the run.
        folder: the run's, where it is here; else MLflow's copies tell.
    """
    run_id, name = run.info.run_id, run.info.run_name or run.info.run_id
    with store.explained(f"does not give the files of the run {name}"), TemporaryDirectory() as made:
        copies = Path(made)
        for artifact in (REVIEW, JSON, CARD):
            _copy(client, run_id, artifact, copies)
        if (copies / REVIEW).is_file():
            return Found(_of_review(copies, run_id), store)
        if (copies / JSON).is_file():
            return Found(replace(read_report(copies / JSON, name), run=run_id), store)
        rows, best = _table(client, run_id, name, copies), _training(folder or copies).get("step")
    steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
    if not steps:
        raise MedsegError(f"the run {name} was never validated: it has no scores")
    step = best if isinstance(best, int) else max(steps)
    if step not in steps:
        raise MedsegError(f"the run {name} keeps no scores of step {step}, where its weights were best: evaluate them")
    kept = [row for row in rows if row.get("step") == step]
    digest = run.data.tags.get("dataset.digest")
    return Found(scores_of_rows(kept, name, dataset=digest, run=run_id, step=step), store)


def _table(client: MlflowClient, run_id: str, name: str, copies: Path) -> list[dict[str, Any]]:
    """The rows of a run's validations."""
    _copy(client, run_id, TABLE, copies)
    if not (copies / TABLE).is_file():
        raise MedsegError(f"the run {name} has no table of validations ({TABLE}): it ended before the first one")
    content = json.loads((copies / TABLE).read_text("utf-8"))
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def _training(folder: Path) -> Mapping[str, Any]:
    """What the card of a folder's best weights says of their training; nothing where there is none."""
    return read_card((folder / CARD).parent).training if (folder / CARD).is_file() else {}


def _copy(client: MlflowClient, run_id: str, artifact: str, copies: Path) -> None:
    """Copies a run's artifact, where there is one, to the same place below a folder."""
    folder, _, _ = artifact.rpartition("/")
    if artifact in {file.path for file in client.list_artifacts(run_id, folder)}:
        (copies / artifact).parent.mkdir(parents=True, exist_ok=True)
        fetched = Path(client.download_artifacts(run_id, artifact, str(copies)))  # not always below the folder
        if fetched != copies / artifact:
            shutil.copyfile(fetched, copies / artifact)
