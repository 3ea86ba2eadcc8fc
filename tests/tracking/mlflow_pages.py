"""MLflow's pages in a browser, as somebody who reviews runs goes through them."""

from __future__ import annotations

import json
from typing import Any

from chromium import Browser

CHARTS = "document.querySelectorAll('.js-plotly-plot .scatterlayer .point, .js-plotly-plot .barlayer .point')"
PICTURES = "[...document.images].filter((image) => image.src.includes('/get-artifact?'))"

PLANE = "viewer.planes[0].canvas"


class Pages:
    """The pages of an experiment in a browser.

    Args:
        browser: at none yet.
        address: of the table of runs, as ``medseg ui`` prints it.
    """

    def __init__(self, browser: Browser, address: str, width: int = 1280, height: int = 800) -> None:
        self.browser = browser
        self._runs = address.partition("#")[2].partition("?")[0]
        browser.open(address, width, height)
        browser.wait("document.querySelector('.ag-row') !== null")

    def columns(self) -> list[str]:
        """The heads of the table of runs, from left to right."""
        heads = "[...document.querySelectorAll('.ag-header-cell')].sort((a, b) => a.ariaColIndex - b.ariaColIndex)"
        return [str(text) for text in self.browser.run(f"{heads}.map((head) => head.innerText)") if text]

    def table(self) -> str:
        """What stands in the rows of the table of runs."""
        rows = "[...document.querySelectorAll('.ag-row')].map((row) => row.innerText).join(' ')"
        return " ".join(str(self.browser.run(rows)).split())

    def open_charts(self) -> int:
        """Goes from the table to the charts; how many points they show, once they are drawn."""
        self.browser.run("document.querySelector('input[type=radio][value=CHART]').click()")
        return int(self.browser.wait(f"{CHARTS}.length"))

    def open_run(self, run: str, part: str = "") -> None:
        """Goes to a page of a run."""
        self.browser.run(f"location.hash = {json.dumps(f'{self._runs}/{run}{part}')}")

    def open_description(self, run: str) -> list[str]:
        """Goes to a run's description and unfolds it; its pictures' places, once all of them are there."""
        self.open_run(run)
        self.browser.wait(f"{PICTURES}.length && {PICTURES}.every((image) => image.naturalWidth > 0)")
        more = "[...document.querySelectorAll('button')].find((button) => button.innerText === 'Show more')"
        self.browser.run(f"{more}?.click()")
        return [str(place) for place in self.browser.run(f"{PICTURES}.map((image) => image.src)")]

    def open_pictures(self, run: str, section: str) -> list[int]:
        """Goes to a section of a run's grid of pictures; their widths, once all of them are there."""
        self.open_run(run, "/model-metrics")
        head = (
            "[...document.querySelectorAll('[role=button], button, h4, span')]"
            f".find((part) => part.innerText.startsWith({json.dumps(section + chr(10))}) || "
            f"part.innerText.startsWith({json.dumps(section + ' (')}))"
        )
        self.browser.wait(f"{head} !== undefined")
        self.browser.wait(
            f"({head}.scrollIntoView(), {PICTURES}.length && {PICTURES}.every((image) => image.naturalWidth > 0))"
        )
        return [int(width) for width in self.browser.run(f"{PICTURES}.map((image) => image.naturalWidth)")]

    def slide_to_the_last(self) -> list[list[int]]:
        """Takes the slider of each picture to its last step by the arrow key; the steps that each showed on its way."""
        thumbs = "[...document.querySelectorAll('[role=slider]')].filter((thumb) => !('disabled' in thumb.dataset))"
        return [self._slide(f"{thumbs}[{number}]") for number in range(self.browser.run(f"{thumbs}.length"))]

    def _slide(self, thumb: str) -> list[int]:
        steps, last = [self._at(thumb, "now")], self._at(thumb, "max")
        while steps[-1] < last:
            self.browser.run(f"{thumb}.focus()")
            self.browser.key("ArrowRight")
            self.browser.wait(f"Number({thumb}.getAttribute('aria-valuenow')) > {steps[-1]}")
            self.browser.wait(f"{PICTURES}.length && {PICTURES}.every((image) => image.naturalWidth > 0)")
            steps.append(self._at(thumb, "now"))
        return steps

    def _at(self, thumb: str, what: str) -> int:
        return int(self.browser.run(f"{thumb}.getAttribute('aria-value{what}')"))

    def open_report(self, run: str) -> None:
        """Goes to report.html among a run's artifacts, and clicks its viewer's first plane."""
        self.open_run(run, "/artifacts/report.html")
        frame = "document.querySelector('iframe')"
        self.browser.wait(f"{frame} !== null")
        self.wait_in_report("typeof viewer !== 'undefined' && viewer.view !== null")
        self.in_report(f"{PLANE}.scrollIntoView({{block: 'center'}})")
        edges = [
            self.browser.run(f"[{frame}.getBoundingClientRect()].map((edge) => [edge.x, edge.y])[0]"),
            self.in_report(f"[{PLANE}.getBoundingClientRect()].map((e) => [e.x + e.width / 2, e.y + e.height / 2])[0]"),
        ]
        self.browser.click(*(sum(pair) for pair in zip(*edges, strict=True)))
        self.wait_in_report(f"document.hasFocus() && document.activeElement === {PLANE}")

    def in_report(self, script: str) -> Any:
        """The value of an expression in report.html."""
        with self.browser.in_frame():
            return self.browser.run(script)

    def wait_in_report(self, script: str) -> None:
        """Waits until an expression is true in report.html: keys take their time to get there."""
        with self.browser.in_frame():
            self.browser.wait(script)
