"""report.html: complete in itself, bounded, escaped, true to the voxels; and in a real browser it moves."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from chromium import CHROMIUM, Browser, browser
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from skimage.measure import block_reduce

from medseg.datasets.labels import Labels
from medseg.evaluation.case import CaseResult
from medseg.evaluation.evaluate import Wanted
from medseg.evaluation.families import counted
from medseg.evaluation.metrics import Counts
from medseg.evaluation.pair import Lengths
from medseg.evaluation.report import Report
from medseg.geometry import Box
from medseg.scans.blocks import blocks
from medseg.scans.scan import Scan, open_scan
from medseg.tracking.html import display as display_module
from medseg.tracking.html.display import CaseScans, Display
from medseg.tracking.html.packed import Packed, pack, unpack
from medseg.tracking.html.page import Page
from medseg.tracking.html.parts import Grey, busiest, parts_of, sides_for, step_for
from medseg.tracking.html.ranking import chosen, ranked
from medseg.tracking.html.shown import Limits, show_cases
from medseg.tracking.planes import case_picture
from medseg.tracking.review import Review

LABELS = Labels({"background": 0, "liver": 3, "kidney": 7})
EVIL = "<script>window.harmed=1</script>"
EVIL_LABEL = '"></option></script><img src=x onerror="window.harmed=1">&amp;'


def scans(
    name: str, reference: np.ndarray, prediction: np.ndarray | None, image: np.ndarray | None = None
) -> CaseScans:
    """A case in memory, of arrays without channels (the image's may have some)."""
    picture = None if image is None else open_scan(image if image.ndim > reference.ndim else image[None])
    found = None if prediction is None else open_scan(prediction[None])
    return CaseScans(name, open_scan(reference[None]), found, picture)


def report_of(cases: dict[str, CaseScans], labels: Labels) -> Report:
    """An evaluation of cases in memory: the counted metrics."""
    results = []
    for name, case in cases.items():
        columns = [metric.name for metric in Wanted(metrics=["counts"]).options(labels, False).metrics]
        if case.prediction is None:
            results.append(CaseResult(name, None, {label: dict.fromkeys(columns, 0.0) for label in labels.targets}, {}))
            continue
        whole = Box.of(case.reference.shape)
        truth, found = (labels.read(scan, whole) for scan in (case.reference, case.prediction))
        counts = Counts.of(found, truth, labels.classes)
        lengths = Lengths.of(case.reference, case.prediction)
        values = {label: dict(counted(counts, n, lengths)) for n, label in enumerate(labels.foreground, 1)}
        values = {label: {c: v for c, v in some.items() if c in columns} for label, some in values.items()}
        results.append(CaseResult(name, counts, values, {"case_pixel_error": counts.pixel_error}))
    return Report(labels, tuple(results))


def volumes(seed: int, shape: tuple[int, ...], wrong: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference, prediction and image; about a share of the voxels is wrong."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape) - np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    distance = np.sqrt((grid**2).sum(0)) / min(shape)
    reference = np.where(distance < 0.2, 7, np.where(distance < 0.4, 3, 0)).astype(np.uint8)
    other = rng.choice([0, 3, 7], shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < wrong, other, reference).astype(np.uint8)
    image = (reference * 40 + rng.integers(0, 30, shape)).astype(np.int16)
    return reference, prediction, image


@pytest.fixture(scope="module")
def cases() -> dict[str, CaseScans]:
    """Three volumes of known order, one of them of an evil name, and one without a prediction."""
    found = {}
    for seed, (name, wrong) in enumerate({"good": 0.0, EVIL: 0.6, "fair": 0.2}.items()):
        reference, prediction, image = volumes(seed, (9, 14, 11), wrong)
        found[name] = scans(name, reference, prediction, image)
    reference, _, image = volumes(9, (9, 14, 11), 0)
    return found | {"none": scans("none", reference, None, image)}


@pytest.fixture(scope="module")
def page(cases: dict[str, CaseScans]) -> str:
    labels = Labels({"background": 0, EVIL_LABEL: 3, "kidney": 7})
    report = report_of(cases, labels)
    shown = show_cases(report, cases.__getitem__)
    return Page(report, shown, f"A title {EVIL}", {"model": EVIL}, [(EVIL, Image.new("RGB", (4, 4)))]).html()


class Elements(HTMLParser):
    """Every element with its attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1][2].append(data)

    def of(self, tag: str) -> Iterator[tuple[dict[str, str | None], str]]:
        return ((attributes, "".join(text)) for name, attributes, text in self.found if name == tag)


# Voxels as text


@given(arrays(st.sampled_from([np.uint8, np.uint16]), array_shapes(min_dims=1, max_dims=4, max_side=7)))
def test_what_is_packed_comes_back(array: np.ndarray) -> None:
    packed = pack(array)
    assert packed.text.isascii() and not set(packed.text) & set("<>&\"'")
    back = unpack(packed)
    assert back.dtype == array.dtype and np.array_equal(back, array)
    assert pack(array) == packed


def test_runs_of_a_label_cost_next_to_nothing() -> None:
    assert len(pack(np.full((64, 64, 64), 3, np.uint8)).text) < 1000
    with pytest.raises(TypeError, match="float64"):
        pack(np.zeros(3))


@given(
    arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]),
        array_shapes(min_dims=4, max_dims=4, max_side=5),
    )
)
def test_grey_values_are_kept_to_half_a_step(image: np.ndarray) -> None:
    grey = Grey.of(image)
    assert grey.codes.shape == image.shape and grey.codes.max() <= 4095 and grey.window[0] < grey.window[1]
    span = float(image.max()) - float(image.min()) if np.isfinite(image).all() else math.inf
    if image.dtype.kind in "iu" and span <= 4095:
        assert np.array_equal(grey.values(), image)
    elif image.dtype.kind in "iu":
        inside = (image >= grey.low) & (image <= grey.low + 4095 * grey.step)
        assert np.abs(grey.values() - image)[inside].max() <= 0.5001 * grey.step


# The order in which people look


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_a_patient_lies_as_radiologists_read(order: list[int], signs: tuple[int, ...]) -> None:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)].T * np.array(signs) * np.array([1.0, 2.0, 3.0])
    picture = nib.Nifti1Image(array.astype(np.int16), affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt("LPS"))
    expected = np.asarray(picture.as_reoriented(turn).dataobj).transpose(2, 1, 0)
    shown = Display(
        CaseScans("a", in_memory(array % 2, affine), None, in_memory(array, affine)), Labels({"a": 1, "b": 0}, ("a",))
    )
    assert shown.anatomical and shown.shape == expected.shape
    assert np.array_equal(shown.read(Box.of(shown.shape)).image[0], expected)
    box = Box((1, 0, 2), tuple(n - 1 for n in expected.shape))
    assert np.array_equal(shown.read(box).image[0], expected[box.slices])
    zooms = np.array(picture.as_reoriented(turn).header.get_zooms()[:3])[::-1]
    assert shown.spacing == pytest.approx(zooms)


def in_memory(array: np.ndarray, affine: np.ndarray) -> Scan:
    """An array with an affine, as a NIfTI says it."""
    from medseg.scans.header import Header, HeaderScan

    class Memory(HeaderScan):
        def _read(self, box: Box) -> np.ndarray:
            return array[box.slices][None].astype(np.int16)

    return Memory(Header("memory", array.shape, 1, np.dtype(np.int16), "XYZ", affine, "mm", True))


def test_what_is_to_be_ignored_is_neither_right_nor_wrong() -> None:
    labels = Labels({"background": 0, "liver": 1, "ignore": 2})
    reference, prediction = np.array([[0, 1, 2, 2]], np.uint8), np.array([[1, 1, 0, 1]], np.uint8)
    voxels = Display(scans("a", reference, prediction), labels).read(Box((0, 0, 0), (1, 1, 4)))
    assert voxels.reference.tolist() == [[[0, 1, 2, 2]]] and voxels.wrong.tolist() == [[[True, False, False, False]]]


# Parts


@given(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)), st.integers(8, 3000), st.data())
def test_no_part_is_larger_than_it_may_be(shape: tuple[int, ...], voxels: int, data: st.DataObject) -> None:
    spacing = data.draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    step = step_for(shape, spacing, voxels)
    assert math.prod(-(-n // s) for n, s in zip(shape, step, strict=True)) <= voxels
    sides = sides_for(shape, voxels)
    assert math.prod(sides) <= voxels and all(1 <= side <= n for side, n in zip(sides, shape, strict=True))


def test_cells_grow_until_voxels_are_as_long_as_wide() -> None:
    """Slices of 5 mm stay while pixels of 1 mm are joined."""
    assert step_for((20, 100, 100), (5.0, 1.0, 1.0), 20 * 25 * 25) == (1, 4, 4)


@given(arrays(np.int64, st.tuples(*[st.integers(1, 9)] * 3), elements=st.integers(0, 3)), st.data())
def test_the_detail_lies_where_most_is_wrong(weight: np.ndarray, data: st.DataObject) -> None:
    sides = data.draw(st.tuples(*[st.integers(1, n) for n in weight.shape]))
    box = busiest(weight, (1, 1, 1), weight.shape, sides)
    assert box.shape == sides and box.within(weight.shape)
    windows = np.lib.stride_tricks.sliding_window_view(weight, sides).sum((3, 4, 5))
    assert weight[box.slices].sum() == windows.max()


def test_a_large_case_is_shown_in_cells_and_where_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means and labels equal scikit-image's and NumPy's of the whole array, and no read is larger than a block."""
    shape, voxels = (24, 36, 30), 2000
    reference, _, image = volumes(0, shape, 0)
    prediction = reference.copy()
    prediction[3:6, 25:30, 2:7] = 7
    monkeypatch.setattr(display_module, "blocks", functools.partial(blocks, voxels=1500))
    case = scans("a", reference, prediction, image)
    sizes = watched(case, monkeypatch)
    overview, detail = parts_of(Display(case, LABELS), voxels)
    assert max(sizes) <= 1500
    assert overview.reference.size + detail.reference.size <= voxels
    step = overview.step
    padded = np.pad(
        image.astype(float), [(0, -n % s) for n, s in zip(shape, step, strict=True)], constant_values=np.nan
    )
    means = block_reduce(padded, step, np.nanmean)
    assert np.abs(overview.image.values()[0] - means).max() <= 0.5
    classes = LABELS.encode(reference)
    middles = tuple(np.minimum(np.arange(0, n, s) + s // 2, n - 1) for n, s in zip(shape, step, strict=True))
    assert np.array_equal(overview.reference, classes[np.ix_(*middles)])
    box = Box(detail.offset, tuple(a + n for a, n in zip(detail.offset, detail.reference.shape, strict=True)))
    assert np.array_equal(detail.reference, classes[box.slices])
    assert np.array_equal(detail.image.values()[0], image[box.slices])
    assert detail.wrong.sum() == (prediction != reference).sum(), "the one wrong place is inside"
    assert detail.wrong[detail.focus()]


def watched(case: CaseScans, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The voxels of each read of a case's scans."""
    sizes: list[int] = []
    for scan in (case.reference, case.prediction, case.image):
        read = scan.read
        monkeypatch.setattr(scan, "read", lambda box, read=read: sizes.append(box.voxels) or read(box))
    return sizes


def test_a_page_holds_no_more_voxels_than_its_limits(cases: dict[str, CaseScans]) -> None:
    limits = Limits(cases=3, voxels=900, case_voxels=400)
    shown = show_cases(report_of(cases, LABELS), cases.__getitem__, limits)
    assert len(shown) == 3
    sizes = [sum(part.reference.size for part in case.parts) for case in shown]
    assert max(sizes) <= 300 and all("more than a page holds" in " ".join(case.notes) for case in shown)


# Which cases


def test_cases_are_ranked_from_the_worst(cases: dict[str, CaseScans]) -> None:
    order = ranked(report_of(cases, LABELS))
    assert [case.name for case in order] == ["none", EVIL, "fair", "good"]
    assert [case.word for case in order] == ["worst", "median", "3 of 4 from the worst", "best"]
    assert [case.notable for case in order] == ["worst", "median", None, "best"]


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_worst_the_median_and_the_best_are_among_the_chosen(number: int, count: int) -> None:
    results = tuple(CaseResult(str(i), None, {"a": {"dice": i / number}}, {}) for i in range(number))
    order = ranked(Report(Labels({"background": 0, "a": 1}), results))
    found = chosen(order, count)
    assert len(found) == min(number, count) and found == sorted(found, key=lambda case: case.place)
    assert len({case.name for case in found}) == len(found)
    if count >= 3:
        assert [case.notable for case in found if case.notable] == [case.notable for case in order if case.notable]


@pytest.mark.parametrize("number", [1, 2, 3, 20])
def test_pictures_are_of_the_worst_the_median_and_the_best_of_all_cases(tmp_path: Path, number: int) -> None:
    found = {}
    for i in range(number):
        reference, prediction, _ = volumes(i, (8, 9, 10), i / number / 2)
        found[str(i)] = scans(str(i), reference, prediction, np.full(reference.shape, i, np.int16))
    report = report_of(found, LABELS)
    shown = show_cases(report, found.__getitem__)
    pictures = Review(tmp_path, report, shown, None).pictures()
    told = {name: picture for name, picture in pictures.items() if name.startswith("cases/")}
    order = [case.name for case in ranked(report)]
    words = {order[number - 1]: "best", order[(number - 1) // 2]: "median", order[0]: "worst"}
    assert set(told) == {f"cases/{word}" for word in words.values()}
    by_name = {case.ranked.name: case for case in shown}
    for name, word in words.items():
        assert told[f"cases/{word}"].tobytes() == case_picture(by_name[name], LABELS.classes + 1).tobytes()


# The file


def test_nothing_is_asked_of_the_network_or_of_other_files(page: str) -> None:
    assert "http:" not in page and "https:" not in page and "//cdn" not in page and "@import" not in page
    for tag, attributes, _ in Elements(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "a")
        assert not {"href", "srcset", "action", "style"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        if "src" in attributes:
            assert tag == "img" and str(attributes["src"]).startswith("data:image/png;base64,")
    script = next(text for attributes, text in Elements(page).of("script") if not attributes)
    for word in (
        "eval(",
        "innerHTML",
        "outerHTML",
        "document.write",
        "fetch(",
        "XMLHttp",
        "localStorage",
        "cookie",
        "import(",
    ):
        assert word not in script


def test_the_policy_allows_this_script_and_this_style_alone(page: str) -> None:
    elements = Elements(page)
    policy = next(a["content"] for a, _ in elements.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert "unsafe" not in str(policy)
    for tag in ("script", "style"):
        (code,) = [text for attributes, text in elements.of(tag) if not attributes]
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    order = [tag for tag, attributes, _ in elements.found]
    assert order.index("meta") < order.index("style") < order.index("script")


def test_names_are_text_wherever_they_stand(page: str) -> None:
    elements = Elements(page)
    kinds = [attributes.get("type") for attributes, _ in elements.of("script")]
    assert kinds[0] == "application/json" and kinds[-1] is None and set(kinds[1:-1]) == {"text/plain"}
    assert [a["value"] for a, _ in elements.of("option")] == ["", "reference", "prediction"], "the page's own"
    assert [a.get("src", "")[:5] for a, _ in elements.of("img")] == ["data:"]
    assert page.count(EVIL) == 0 and page.count('onerror="') == 0
    content = data_of(page)
    assert EVIL in content["names"] and EVIL_LABEL in content["labels"]


def data_of(page: str) -> dict[str, Any]:
    return json.loads(next(text for a, text in Elements(page).of("script") if a.get("id") == "report"))


def test_the_data_are_the_evaluations(page: str, cases: dict[str, CaseScans]) -> None:
    content, report = data_of(page), report_of(cases, LABELS)
    assert content["names"] == list(cases)
    dice = content["ranking"]
    for row in content["rows"]:
        case = report.cases[row["case"]]
        expected = case.values[LABELS.foreground[row["label"]]]["dice"]
        assert row["values"][dice] == pytest.approx(expected, abs=1e-6) and row["missing"] == case.missing


def test_the_voxels_in_the_page_are_the_cases(page: str, cases: dict[str, CaseScans]) -> None:
    texts = {a["id"]: text for a, text in Elements(page).of("script") if a.get("type") == "text/plain"}
    content = data_of(page)
    for shown in content["cases"]:
        case, (part,) = cases[content["names"][shown["index"]]], shown["parts"]
        whole, shape = Box.of(case.reference.shape), tuple(part["shape"])
        for kind, scan in (("reference", case.reference), ("prediction", case.prediction)):
            if scan is None:
                assert part[kind] is None
                continue
            found = unpack(Packed(texts[part[kind]["id"]], part[kind]["bytes"], shape))
            assert np.array_equal(found, LABELS.read(scan, whole))
        grey = part["image"]
        codes = unpack(Packed(texts[grey["id"]], grey["bytes"], (1, *shape)))
        assert np.array_equal(grey["low"] + grey["step"] * codes.astype(float), case.image.read(whole))


def test_regions_are_scored_and_their_labels_are_drawn() -> None:
    """Of labels that overlap each region has rows of its own; in the viewer regions and labels can be chosen."""
    labels = Labels({"background": 0, "edema": 3, "core": 7}, regions={"whole": ("edema", "core"), "core": ("core",)})
    reference, prediction, _ = volumes(0, (6, 7), 0.3)
    counts = Counts.of(labels.encode(prediction), labels.encode(reference), 2)
    values = {name: {"dice": counts.scores(*classes).dice} for name, classes in labels.targets.items()}
    report = Report(labels, (CaseResult("a", counts, values, {}),))
    content = data_of(Page(report, show_cases(report, lambda name: scans(name, reference, prediction))).html())
    assert content["labels"] == ["whole", "core"] and content["classes"] == ["edema", "core"]
    assert content["choices"] == [["whole", [1, 2]], ["core", [2]], ["edema", [1]]]
    assert [row["values"][0] for row in content["rows"]] == pytest.approx([v["dice"] for v in values.values()])


def test_a_page_without_images_or_cases_is_a_page(tmp_path: Path) -> None:
    reference, prediction, _ = volumes(0, (6, 7), 0.3)
    found = {"a": scans("a", reference, prediction)}
    report = report_of(found, LABELS)
    (shown,) = show_cases(report, found.__getitem__)
    assert shown.parts[0].image is None and "masks are shown alone" in shown.notes[0]
    Page(report).write(tmp_path / "report.html")
    assert data_of((tmp_path / "report.html").read_text())["cases"] == []


# In a browser

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(chromium: Browser, page: str, tmp_path: Path) -> Browser:
    """The page from disk, once its viewer shows a case; nobody has complained yet."""
    (tmp_path / "report.html").write_text(page)
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.open(f"file://{tmp_path}/report.html")
    chromium.wait("viewer.view !== null")
    return chromium


@needs_chromium
def test_the_browser_finds_nothing_wrong_and_asks_for_nothing(opened: Browser) -> None:
    assert opened.problems == []
    assert [address[:5] for address in opened.requests] == ["file:", "data:"]
    assert opened.run("window.harmed") is None
    assert opened.run("document.title").startswith(f"A title {EVIL}")


@needs_chromium
def test_the_browser_reads_the_voxels_that_were_written(
    opened: Browser, page: str, cases: dict[str, CaseScans]
) -> None:
    name = opened.run("REPORT.names[REPORT.cases[viewer.place].index]")
    whole = Box.of(cases[name].reference.shape)
    for kind in ("reference", "prediction"):
        expected = LABELS.read(getattr(cases[name], kind), whole).ravel().tolist()
        assert opened.run(f"Array.from(viewer.view.{kind})") == expected
    low, step = opened.run("[viewer.view.part.image.low, viewer.view.part.image.step]")
    codes = np.array(opened.run("Array.from(viewer.view.image)"))
    assert np.array_equal(low + step * codes, cases[name].image.read(whole).ravel())


@needs_chromium
def test_keys_move_the_plane_that_has_the_focus(opened: Browser) -> None:
    opened.run("viewer.view.go([4, 7, 5])")
    for plane, axis in ((0, 0), (1, 1), (2, 2)):
        opened.run(f"viewer.planes[{plane}].canvas.focus()")
        before = opened.run("viewer.view.cursor")
        opened.key("ArrowUp")
        opened.key("ArrowUp")
        opened.key("ArrowDown")
        moved = opened.run("viewer.view.cursor")
        assert [b - a for a, b in zip(before, moved, strict=True)] == [int(a == axis) for a in range(3)]
    opened.key("Home")
    assert opened.run("viewer.view.cursor[2]") == 0
    opened.key("PageUp")
    assert opened.run("viewer.view.cursor[2]") == 10
    opened.key("PageUp")
    assert opened.run("viewer.view.cursor[2]") == 10, "the last slice of 11"
    assert opened.run("document.activeElement.getAttribute('aria-valuetext')").endswith("11 of 11")
    opened.key("e")
    assert opened.run("byId('show-errors').checked")
    assert opened.problems == []


@needs_chromium
def test_the_wheel_pages_and_a_click_moves_the_other_planes(opened: Browser) -> None:
    opened.run("viewer.planes[0].canvas.scrollIntoView({block: 'center'})")
    opened.run("viewer.view.go([4, 7, 5])")
    x, y = opened.run(
        "(() => { const edge = viewer.planes[0].canvas.getBoundingClientRect();"
        "return [edge.x + edge.width / 2, edge.y + edge.height / 2]; })()"
    )
    opened.wheel(x, y, -100)
    assert opened.wait("viewer.view.cursor[0] === 5")
    opened.run("viewer.view.go([4, 0, 0])")
    opened.click(x, y)
    assert opened.run("viewer.view.cursor") == [4, 7, 5], "the middle of 14 x 11"


@needs_chromium
def test_errors_windows_and_labels_change_what_is_painted(opened: Browser) -> None:
    place = opened.run("REPORT.cases.findIndex((shown) => REPORT.names[shown.index].startsWith('<'))")
    opened.run(f"openCase({place})")
    painted = "viewer.planes[0].canvas.toDataURL()"
    seen = [opened.run(painted)]
    for change in (
        "byId('show-errors').click()",
        "(() => { byId('opacity').value = 20; byId('opacity').dispatchEvent(new Event('input')); })()",
        "(() => { byId('width').value = 50; byId('width').dispatchEvent(new Event('change')); })()",
        "(() => { byId('shown-label').value = 2; byId('shown-label').dispatchEvent(new Event('change')); })()",
        "(() => { byId('fill').value = 'prediction'; byId('fill').dispatchEvent(new Event('change')); })()",
    ):
        opened.run(change)
        seen.append(opened.run(painted))
    assert len(set(seen)) == len(seen)
    assert opened.run("viewer.view.window[1] - viewer.view.window[0]") == 50


@needs_chromium
def test_the_table_sorts_and_filters(opened: Browser) -> None:
    cells = "[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{}].textContent)"
    assert opened.run(cells.format(0)) == ["good", EVIL, "fair", "none"]
    opened.run("document.querySelectorAll('#table thead button')[1].click()")
    assert opened.run(cells.format(0)) == ["none", EVIL, "fair", "good"]
    assert opened.run("document.querySelectorAll('#table th')[1].getAttribute('aria-sort')") == "ascending"
    opened.run("document.querySelectorAll('#table thead button')[1].click()")
    assert opened.run(cells.format(0)) == ["good", "fair", EVIL, "none"]
    opened.run("(() => { byId('label').value = 0; byId('label').dispatchEvent(new Event('change')); })()")
    assert opened.run(cells.format(1)) == [EVIL_LABEL] * 4
    opened.run("(() => { byId('search').value = 'SCRIPT'; byId('search').dispatchEvent(new Event('input')); })()")
    assert opened.run(cells.format(0)) == [EVIL]
    opened.run("document.querySelector('#table tbody button').click()")
    assert opened.wait("REPORT.names[REPORT.cases[viewer.place].index].startsWith('<')")
    assert opened.run("byId('shown-label').selectedOptions[0].textContent") == EVIL_LABEL
    assert opened.problems == []


@needs_chromium
def test_it_works_in_a_sandboxed_frame_of_a_blob(chromium: Browser, page: str) -> None:
    """As MLflow's UI shows an HTML artifact: scripts are allowed, an origin and storage are not."""
    chromium.open("about:blank")
    chromium.problems.clear()
    chromium.run(f"window.text = {json.dumps(page)}; 0")
    chromium.run(
        "new Promise((done) => { const frame = document.createElement('iframe');"
        "frame.setAttribute('sandbox', 'allow-scripts'); frame.width = 1200; frame.height = 900;"
        "frame.onload = () => done(1); frame.src = URL.createObjectURL(new Blob([text], {type: 'text/html'}));"
        "document.body.append(frame); })"
    )
    chromium.enter_frame()
    chromium.wait("viewer.view !== null")
    chromium.run("viewer.planes[0].canvas.focus()")
    before = chromium.run("viewer.view.cursor[0]")
    chromium.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp'}))")
    assert chromium.run("viewer.view.cursor[0]") == min(before + 1, 8)
    assert chromium.problems == []


@needs_chromium
def test_a_picture_of_two_axes_is_one_plane_that_can_be_zoomed(chromium: Browser, tmp_path: Path) -> None:
    reference, prediction, image = volumes(1, (40, 60), 0.2)
    colour = np.stack([image, image // 2, image * 0]).astype(np.uint8)
    found = {"a": scans("a", reference, prediction, colour)}
    report = report_of(found, LABELS)
    Page(report, show_cases(report, found.__getitem__)).write(tmp_path / "report.html")
    chromium.problems.clear()
    chromium.open(f"file://{tmp_path}/report.html")
    chromium.wait("viewer.view !== null")
    assert chromium.run("viewer.planes.length") == 1
    chromium.run("viewer.planes[0].canvas.focus()")
    size = chromium.run("viewer.planes[0].dx")
    chromium.key("+")
    assert chromium.run("viewer.planes[0].dx") == pytest.approx(1.25 * size)
    before = chromium.run("viewer.view.cursor")
    chromium.key("ArrowRight")
    assert chromium.run("viewer.view.cursor") == [before[0], before[1], before[2] + 1]
    said = chromium.run("byId('readout').textContent").split("value ")[1].split(" ·")[0]
    assert [float(value) for value in said.split(", ")] == colour[:, before[1], before[2] + 1].tolist()
    assert chromium.problems == []
