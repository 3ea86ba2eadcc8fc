"""``medseg postprocess``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.cli.infer import SOME_SKIPPED
from medseg.errors import ConfigError, MedsegError

if TYPE_CHECKING:
    from medseg.datasets.labels import Labels
    from medseg.postprocessing.chain import Chain
    from medseg.postprocessing.files import Evidence
    from medseg.postprocessing.settings import Step


def postprocess(
    inputs: Annotated[list[Path], typer.Argument(metavar="MASK...", help="Masks, or folders of them.")],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="The folder for the results.")] = None,
    remove_small: Annotated[
        Optional[str],
        typer.Option(metavar="N[mm2|mm3]", help="Drop objects of fewer voxels, or of less area or volume."),
    ] = None,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Keep the largest object of each label alone.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill background that a label encloses.")] = False,
    instances: Annotated[bool, typer.Option("--instances", help="Number the objects from 1, as uint32.")] = False,
    steps: Annotated[
        Optional[Path], typer.Option(metavar="FILE.yaml", help="Steps in any order, as postprocessing: in a config.")
    ] = None,
    labels: Annotated[
        Optional[str], typer.Option(metavar="A,B", help="The labels to look at: names, or values where none are known.")
    ] = None,
    connectivity: Annotated[
        Optional[int],
        typer.Option(min=1, max=3, help="Axes along which voxels of one object may be apart; default: all of them."),
    ] = None,
    crf: Annotated[bool, typer.Option("--crf", help="First make each mask anew by a dense CRF.")] = False,
    images: Annotated[
        Optional[Path], typer.Option(help="For --crf: what the network saw, by the masks' stems.")
    ] = None,
    probabilities: Annotated[
        Optional[Path], typer.Option(help="For --crf: default: the folder of that name beside the masks.")
    ] = None,
    device: Annotated[str, typer.Option(help="For --crf: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    format: Annotated[str, typer.Option(help="auto (like the input), nii.gz, nii, tif, png or zarr.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Clean masks of any size: small objects, largest objects, holes, instances, a dense CRF."""
    if output is None:
        raise MedsegError("no folder for the results is given: add -o OUT")
    names = None if labels is None else [name.strip() for name in labels.split(",") if name.strip()]
    how = {"labels": names, "connectivity": connectivity}
    wanted = _steps(_size(remove_small), keep_largest, fill_holes, instances, steps, how)
    if not wanted and not crf:
        raise MedsegError("nothing to do: give --remove-small, --keep-largest, --fill-holes, --instances or --crf")
    if images is not None and not crf:
        raise MedsegError("--images is for --crf: give both, or neither")
    from medseg.postprocessing.chain import Chain

    sources = _sources(inputs)
    chain = Chain(wanted, _labels(sources))
    targets = _targets(sources, output, format, chain)
    evidence = _Evidence(images, probabilities, device, chain) if crf else None
    rows = _run(sources, targets, chain, evidence, overwrite, as_json)
    skipped = [row for row in rows if row["status"] == "skipped"]
    if len(skipped) < len(rows):
        _note(sources, output, chain, crf)
    if as_json:
        import json

        print(json.dumps({"masks": rows}, indent=2))
    if skipped and len(rows) == 1:
        raise MedsegError(skipped[0]["why"])
    if skipped:
        print(f"{len(skipped)} of {len(rows)} masks were skipped", file=sys.stderr)
        raise typer.Exit(SOME_SKIPPED)


def _size(text: str | None) -> dict[str, float]:
    """``50`` or ``2.5mm3`` as the argument of a step."""
    if text is None:
        return {}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(mm2|mm3|mm²|mm³)?\s*", text)
    if found is None or float(found[1]) <= 0 or (found[2] is None and not found[1].isdigit()):
        raise ConfigError(
            f"--remove-small {text!r} is no size: give voxels, such as 50, or 2.5mm3 (2.5mm2 for pictures)"
        )
    if found[2] is None:
        return {"min_voxels": int(found[1])}
    return {"min_mm" + found[2][2:].translate(str.maketrans("²³", "23")): float(found[1])}


def _steps(
    least: dict[str, float],
    keep_largest: bool,
    fill_holes: bool,
    instances: bool,
    file: Path | None,
    how: dict[str, Any],
) -> tuple[Step, ...]:
    """The steps of a file, or of the options: small objects, the largest, holes, numbers."""
    from medseg.postprocessing.settings import parse_steps, read_steps

    chosen = bool(least) or keep_largest or fill_holes or instances
    if file is not None and (chosen or any(how.values())):
        raise MedsegError(f"--steps {file} says what is done: leave the other steps, --labels and --connectivity to it")
    if file is not None:
        return read_steps(file)
    specs = [{"name": "remove_small", **least, **how}] if least else []
    specs += [{"name": "keep_largest", **how}] if keep_largest else []
    specs += [{"name": "fill_holes", "labels": how["labels"]}] if fill_holes else []
    specs += [{"name": "instances", **how}] if instances else []
    return parse_steps(specs, "command line")


def _sources(inputs: list[Path]) -> list[Path]:
    """The masks; of what medseg infer has written, probabilities are none."""
    from medseg.inference.outputs import PROBABILITIES, find_sources

    found: list[Path] = []
    for path in inputs:
        below = [path] if path.is_file() else find_sources([path])
        found += [p for p in below if p == path or PROBABILITIES not in p.relative_to(path).parts]
    return list(dict.fromkeys(found)) or find_sources(inputs)


def _labels(sources: list[Path]) -> Labels | None:
    """What the masks' values mean, as inference.json or dataset.json says; None for numbered objects."""
    from medseg.evaluation.evaluate import find_labels
    from medseg.postprocessing.files import check_one_meaning

    found = {folder: find_labels(folder, folder) for folder in dict.fromkeys(path.parent for path in sources)}
    check_one_meaning(dict(found))
    labels = next(iter(found.values()))
    return None if labels is None or labels.instances else labels


def _targets(sources: list[Path], folder: Path, format: str, chain: Chain) -> list[Path]:
    from medseg.inference.outputs import name_outputs

    targets = name_outputs(sources, folder, format, 4 if chain.numbers else 1)
    for source, target in zip(sources, targets, strict=True):
        if target.exists() and source.exists() and target.samefile(source):
            raise MedsegError(f"{target} is the mask itself: give another -o")
    return targets


class _Evidence:
    """What --crf needs, found by stem."""

    def __init__(self, images: Path | None, probabilities: Path | None, device: str, chain: Chain) -> None:
        from medseg.inference.device import find_device
        from medseg.postprocessing.crf import DenseCRF
        from medseg.postprocessing.crf_tiles import Refinement

        if images is None:
            raise MedsegError("--crf needs the images that the network saw: add --images FOLDER")
        if chain.labels is None:
            raise MedsegError(
                "--crf needs to know what the masks' values mean: give masks with the inference.json that medseg infer "
                "leaves beside them"
            )
        self._images, self._probabilities = images, probabilities
        self._refinement = Refinement(DenseCRF(), chain.labels, find_device(device))

    def of(self, mask: Path) -> Evidence:
        """The evidence for one mask."""
        from medseg.inference.outputs import PROBABILITIES
        from medseg.postprocessing.files import Evidence, partner
        from medseg.scans.scan import stem_of

        stem, shares = stem_of(mask), self._probabilities or mask.parent / PROBABILITIES
        return Evidence(
            self._refinement,
            partner(stem, _by_stem(self._images), "image", self._images),
            partner(stem, _by_stem(shares), "probabilities", shares),
        )


def _by_stem(path: Path) -> dict[str, Path]:
    from medseg.datasets.cases import find_scans
    from medseg.scans.scan import stem_of, suffix_of

    if not path.exists():
        raise MedsegError(f"{path} does not exist")
    return {stem_of(path): path} if suffix_of(path) else find_scans(path)


def _run(
    sources: list[Path],
    targets: list[Path],
    chain: Chain,
    evidence: _Evidence | None,
    overwrite: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Each mask in its turn; a bad one stops no other."""
    from medseg.inference.lock import held
    from medseg.postprocessing.files import process_file
    from medseg.scans.sink import as_output_error

    rows: list[dict[str, Any]] = []
    for source, target in zip(sources, targets, strict=True):
        row: dict[str, Any] = {"input": str(source), "output": str(target), "status": "done"}
        try:
            with as_output_error(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with held(target):
                shown = None if evidence is None else evidence.of(source)
                row["steps"] = process_file(source, target, chain, shown, overwrite=overwrite)
        except MedsegError as error:
            row |= {"status": "skipped", "why": str(error)}
        rows.append(row)
        _tell(row, as_json, len(sources))
    return rows


def _tell(row: dict[str, Any], as_json: bool, of: int) -> None:
    if row["status"] == "skipped":
        if of > 1:
            print(f"skipped: {row['why']}", file=sys.stderr)
    elif not as_json:
        print(f"{row['output']}  {'; '.join(map(_account, row['steps']))}")


def _account(step: dict[str, Any]) -> str:
    if "components" not in step:
        return str(step["name"])
    if step["name"] == "instances":
        return f"instances: {step['components']} objects"
    did = "filled" if step["name"] == "fill_holes" else "removed"
    pieces = f"{step['changed']} pieces" if did == "filled" else f"{step['changed']} of {step['components']} objects"
    return f"{step['name']}: {pieces}, {step['changed_voxels']} voxels {did}"


def _note(sources: list[Path], folder: Path, chain: Chain, crf: bool) -> None:
    """Leaves inference.json beside the results: what their values mean, and what was done."""
    from medseg.evaluation.evaluate import INFERENCE
    from medseg.files import read_json, write_json

    beside = sources[0].parent / INFERENCE
    before = read_json(beside, "what medseg infer says of its masks") if beside.is_file() else {}
    done = [*before.get("postprocessing", []), *([{"name": "dense_crf"}] if crf else []), *chain.to_list()]
    meaning = chain.written
    about = before if meaning is None else {**before, "labels": meaning.to_dict()}
    write_json(folder / INFERENCE, {**about, "postprocessing": done})
