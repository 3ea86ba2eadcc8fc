"""``medseg plan``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from medseg.cli.check import FilesBar
from medseg.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from medseg.experiment import Data

SUFFIXES = (".yaml", ".yml")


def plan(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A data set's folder, or a manifest.")],
    keys: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[data.KEY=VALUE]...", help="What you know: data.labels='{background: 0, lesion: 1}'"),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The config to write; configs/DATA.yaml if not given.")
    ] = None,
    memory: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="What training may hold: 8GiB. Default: 60 % of the machine's."),
    ] = None,
    network: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="A network of medseg networks. Default: what fits the data.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long training may take.")] = 20.0,
    exclude_broken: Annotated[
        bool, typer.Option("--exclude-broken", help="Leave broken cases out even where they are more than a fifth.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 is one for each processor.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a config that is there.")] = False,
) -> None:
    """Measure a data set and write a config for it, each number with its reason."""
    output = output or Path("configs") / f"{data.resolve().name.split('.')[0]}.yaml"
    _check_output(output, overwrite)
    from medseg.planning.plan import Request, default_name, make_plan

    request = Request(
        _section(data, list(keys or ())),
        default_name(output),
        _bytes(memory),
        minutes,
        network,
        exclude_broken,
        workers,
    )
    with FilesBar() as watch:
        made = make_plan(request, watch)
    _write(output, made.text)
    for line in made.summary:
        print(line, file=sys.stderr)
    print(f"next: medseg train {output} --fold 0", file=sys.stderr)
    print(output)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{output} is no name for a config: end it with {SUFFIXES[0]}")
    if output.is_dir() or (output.exists() and not overwrite):
        raise OutputError(f"{output} exists: use --overwrite to replace it")


def _bytes(memory: str | None) -> int | None:
    if memory is None:
        return None
    from medseg.inference.budget import parse_size

    return parse_size(memory)


def _section(root: Path, keys: list[str]) -> Data:
    """The data section that a root and overrides make."""
    import yaml
    from pydantic import ValidationError

    from medseg.experiment import Data

    given: dict[str, Any] = {"root": root}
    for text in keys:
        key, equals, value = text.partition("=")
        if not equals or not key.startswith("data.") or key.count(".") != 1:
            raise ConfigError(f"{text!r}: only keys of the data section are given to plan, as in data.layout=msd")
        try:
            given[key.removeprefix("data.")] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"{text!r}: the value is not YAML; quote it") from None
    try:
        return Data.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("data", *first["loc"])))
        raise ConfigError(f"{where} is {first['input']!r}: {first['msg']}") from None


def _write(output: Path, text: str) -> None:
    from medseg.files import write_text
    from medseg.scans.sink import as_output_error

    with as_output_error(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
