"""``report.html``, put together: figures, tables, and what the viewer shows.

The page may run one script, apply one style and show pictures that it holds itself: a policy in its head says so, by
the digests of both, and forbids all else, so that nothing that a file's name smuggles in could run. Data lie in blocks
that no browser runs. It needs no storage and no address of its own, and so works from disk and in a sandboxed frame.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import medseg
from medseg.evaluation.report import Report
from medseg.evaluation.table import heading
from medseg.files import write_text
from medseg.tracking.html.packed import pack
from medseg.tracking.html.parts import Part
from medseg.tracking.html.ranking import column_of
from medseg.tracking.html.sections import about_html, confusion_html, pictures_html, summary_html
from medseg.tracking.html.shown import ShownCase
from medseg.tracking.pictures import ERRORS, PALETTE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

NAME = "report.html"
SCRIPTS = ("data.js", "table.js", "strips.js", "planes.js", "viewer.js", "controls.js")
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)
COLOURS = {
    "missed": ERRORS["false negative"],
    "excess": ERRORS["false positive"],
    "confused": ERRORS["wrong class"],
    "classes": PALETTE,
}
DIGITS = 7
"""Of numbers in the page."""


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        report: the evaluation.
        shown: the cases that can be viewed.
        title: over it.
        about: words and what they are, below the title: the model, the data set, the run.
        pictures: further pictures with their titles, such as learning curves.
    """

    report: Report
    shown: Sequence[ShownCase] = ()
    title: str = "Evaluation"
    about: Mapping[str, str] | None = None
    pictures: Sequence[tuple[str, Image]] = ()

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all."""
        write_text(path, self.html())

    def html(self) -> str:
        """The file."""
        style, script = _asset("page.css"), "".join(map(_asset, SCRIPTS))
        blocks: list[str] = []
        content = self._content(blocks)
        return Template(_asset("page.html")).substitute(
            policy=POLICY.format(script=_digest(script), style=_digest(style)),
            title=escape(self.title),
            about=about_html(self.about or {}),
            summary=summary_html(self.report),
            confusion=confusion_html(self.report),
            pictures=pictures_html(self.pictures),
            version=escape(medseg.__version__),
            data=_json(content),
            voxels="\n".join(blocks),
            style=style,
            script=script,
        )

    def _content(self, blocks: list[str]) -> dict[str, Any]:
        """What the script reads; voxels go into blocks of their own."""
        columns, names = self.report.averaged, [case.name for case in self.report.cases]
        places = {name: place for place, name in enumerate(names)}
        labels = self.report.labels
        numbered = {name: (number,) for number, name in enumerate(labels.foreground, 1)}
        return {
            "names": names,
            "labels": list(labels.targets),
            "classes": labels.foreground,
            "choices": list({**labels.targets, **numbered}.items()),
            "columns": [{"heading": heading(c), "better": self._better(c)} for c in columns],
            "ranking": columns.index(column_of(self.report)),
            "rows": [
                {
                    "case": place,
                    "label": number,
                    "missing": case.missing,
                    "values": [_number(case.values[label].get(c, math.nan)) for c in columns],
                }
                for place, case in enumerate(self.report.cases)
                for number, label in enumerate(labels.targets)
            ],
            "cases": [
                {
                    "index": places[shown.ranked.name],
                    "word": shown.ranked.word,
                    "anatomical": shown.anatomical,
                    "notes": shown.notes,
                    "parts": [_part(part, blocks) for part in shown.parts],
                }
                for shown in self.shown
            ],
            "colours": COLOURS,
        }

    def _better(self, column: str) -> str:
        return str(self.report.to_dict()["columns"][column]["better"])


def _part(part: Part, blocks: list[str]) -> dict[str, Any]:
    image = part.image
    grey = (
        None
        if image is None
        else {
            **_block(image.codes, blocks),
            "channels": len(image.codes),
            "low": _number(image.low),
            "step": _number(image.step),
            "window": [_number(value) for value in image.window],
        }
    )
    return {
        "title": part.title,
        "shape": part.reference.shape,
        "spacing": [_number(value) for value in part.spacing],
        "offset": part.offset,
        "step": part.step,
        "focus": part.focus(),
        "image": grey,
        "reference": _block(part.reference, blocks),
        "prediction": None if part.prediction is None else _block(part.prediction, blocks),
    }


def _block(values: NDArray, blocks: list[str]) -> dict[str, Any]:
    packed = pack(values)
    name = f"voxels-{len(blocks)}"
    blocks.append(f'<script type="text/plain" id="{name}">{packed.text}</script>')
    return {"id": name, "bytes": packed.bytes}


def _number(value: float) -> float | None:
    """Rounded; null where there is none."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _json(content: Any) -> str:
    """JSON that ends no script element and begins no comment, whatever is in it."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
