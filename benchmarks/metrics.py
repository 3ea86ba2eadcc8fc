"""Metrics: their largest difference from independent implementations, cases a second beside MONAI's, peak memory.

python benchmarks/metrics.py --agreement           200 random pairs against SciPy, scikit-learn, MONAI, torchmetrics
python benchmarks/metrics.py --speed               the same pairs through MONAI's metrics
python benchmarks/metrics.py --memory 1024         a pair of 1024³ voxels, from file to report, in a process of its own
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from workbench import MEDSEG, RESULTS, account, load, save, scratch, smooth_noise, watch

from medseg.evaluation.calibration import BINS, Calibration
from medseg.evaluation.connectomics import segments_of
from medseg.evaluation.detection import InstanceScores, lesions
from medseg.evaluation.metrics import Counts
from medseg.evaluation.overlaps import Components, Numbers, Overlaps, Tally
from medseg.evaluation.surfaces import Borders, SurfaceDistances
from medseg.geometry import Box
from medseg.scans.memory import ArrayScan
from medseg.scans.scan import create_mask

PAIRS = 200
CLASSES = 3
QUANTILE = 0.95

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, ...]]
Row = dict[str, float]


def pairs(count: int, seed: int = 0) -> Iterator[Pair]:
    """Predictions, references and spacings: pictures and volumes, good and bad, some classes empty."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        axes = 2 + number % 2
        shape = tuple(int(n) for n in rng.integers(12, 28 if axes == 3 else 48, axes))
        noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, *(2,) * axes))
        noise /= noise.std()
        edges = [0.4, 0.9, 1.6] if rng.random() < 0.8 else [0.4, 0.9, 99]
        worse = noise[0] + rng.uniform(0, 0.6) * noise[1]
        spacing = tuple(float(s) for s in rng.uniform(0.4, 3, axes))
        yield np.digitize(worse, edges).astype(np.uint8), np.digitize(noise[0], edges).astype(np.uint8), spacing


def surfaces(pair: Pair) -> dict[int, SurfaceDistances]:
    """As medseg evaluate finds them, in one block."""
    prediction, reference, spacing = pair
    borders = Borders(reference.shape)
    whole = Box.of(reference.shape)
    borders.add(whole, whole, prediction, reference)
    return dict(borders.distances(spacing))


def overlaps(reference: NDArray, prediction: NDArray, numbers: bool) -> Overlaps:
    """Of instance numbers, or of components."""
    diagonal = [Components(reference.ndim, diagonal=True) for _ in range(2)]
    counted = Tally(*([Numbers(), Numbers()] if numbers else diagonal))
    counted.add(reference, prediction)
    return counted.overlaps()


def of_counts(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): scikit-learn."""
    from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

    prediction, reference, _ = pair
    counts = Counts.of(prediction, reference, CLASSES)
    table = confusion_matrix(reference.ravel(), prediction.ravel(), labels=range(CLASSES + 1))
    yield "counts (voxels)", float(np.abs(counts.table - table).max()), 0.0
    for number in range(1, CLASSES + 1):
        p, r = (prediction == number).ravel(), (reference == number).ravel()
        if not (p.any() and r.any()):
            continue
        scores = counts.scores(number)
        yield "dice", scores.dice, f1_score(r, p)
        yield "iou", scores.iou, jaccard_score(r, p)
        yield "sensitivity", scores.sensitivity, recall_score(r, p)
        yield "precision", scores.precision, precision_score(r, p)
        yield "specificity", scores.specificity, recall_score(~r, ~p)
        yield "pixel_error", scores.pixel_error, float((p != r).mean())
        sizes = float(p.sum()), float(r.sum())
        more = counts.predicted_voxels(number) - counts.reference_voxels(number)
        yield "volume_difference (voxels)", float(more), sizes[0] - sizes[1]
        yield "volume_similarity", scores.volume_similarity, 1 - abs(sizes[0] - sizes[1]) / sum(sizes)


def of_surfaces(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): distance transforms of SciPy, over the whole scan."""
    prediction, reference, spacing = pair
    for number, found in surfaces(pair).items():
        edges = [mask ^ ndimage.binary_erosion(mask) for mask in (prediction == number, reference == number)]
        maps = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
        ways = maps[1][edges[0]], maps[0][edges[1]]
        both = np.concatenate(ways)
        tolerance = 1.037 * max(spacing)
        yield "hd", found.hausdorff(), float(both.max())
        yield "hd95", found.hausdorff(QUANTILE), max(float(np.quantile(way, QUANTILE)) for way in ways)
        yield "assd", found.mean, float(both.mean())
        yield "nsd", found.within(tolerance), float((both <= tolerance).mean())


def of_lesions(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): SciPy's components, looked at one by one."""
    prediction, reference, _ = (*(part == 1 for part in pair[:2]), None)
    found, dice = lesions(overlaps(reference, prediction, numbers=False))
    full = np.ones((3,) * reference.ndim)
    (truth, expected), (test, predicted) = (ndimage.label(mask, full) for mask in (reference, prediction))
    hit = sum(bool(prediction[truth == n].any()) for n in range(1, expected + 1))
    false = sum(not reference[test == n].any() for n in range(1, predicted + 1))
    yield "lesions (count)", abs(found.tp - hit) + abs(found.fp - false) + abs(found.fn - expected + hit), 0.0
    everything = 2 * hit + false + expected - hit
    if not (expected and predicted):
        return
    yield "lesion_f1", found.f1, 2 * hit / everything
    yield "lesion_sensitivity", found.sensitivity, hit / expected
    yield "lesion_precision", found.precision, hit / (hit + false) if hit + false else 0.0
    total = sum(_touching_dice(truth == n, test) for n in range(1, expected + 1))
    yield "lesion_dice", dice, total / (everything - hit)


def _touching_dice(lesion: NDArray, test: NDArray) -> float:
    """Of a lesion and all predicted objects that touch it."""
    touching = np.isin(test, np.setdiff1d(test[lesion], [0]))
    return float(2 * (lesion & touching).sum() / (lesion.sum() + touching.sum()))


def of_segments(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): scikit-learn's comparison of clusterings."""
    from sklearn.metrics import completeness_score, homogeneity_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import pair_confusion_matrix

    prediction, reference, _ = (*(part == 0 for part in pair[:2]), None)
    ours = segments_of(prediction, reference)
    truth, test = ndimage.label(~reference)[0], ndimage.label(~prediction)[0].astype(np.int64)
    inside = truth > 0
    alone = inside & (test == 0)
    test[alone] = test.max() + 1 + np.arange(alone.sum())
    (_, merged), (split, together) = pair_confusion_matrix(truth[inside], test[inside])
    both = int(together) + int(inside.sum())
    yield "v_rand", ours.rand.f, 2 * both / (2 * both + split + merged)
    yield "v_rand_split", ours.rand.split, both / (both + split)
    yield "v_rand_merge", ours.rand.merge, both / (both + merged)
    yield "v_info", ours.info.f, normalized_mutual_info_score(truth[inside], test[inside])
    yield "v_info_split", ours.info.split, completeness_score(truth[inside], test[inside])
    yield "v_info_merge", ours.info.merge, homogeneity_score(truth[inside], test[inside])


def of_instances(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): MONAI's panoptic quality, and IoUs one by one."""
    import torch
    from monai.metrics import compute_panoptic_quality

    prediction, reference = (ndimage.label(part == 1)[0] for part in pair[:2])
    ours = InstanceScores.of(overlaps(reference, prediction, numbers=True))
    if not (prediction.any() and reference.any()):
        return
    tensors = torch.tensor(prediction), torch.tensor(reference)
    for name, value in (("pq", ours.pq), ("rq", ours.rq), ("sq", ours.sq)):
        if not np.isnan(value):
            yield name, value, float(compute_panoptic_quality(*tensors, metric_name=name, smooth_numerator=0))
    numbers = (range(1, part.max() + 1) for part in (reference, prediction))
    found = [_iou(reference == r, prediction == p) for r, p in itertools.product(*numbers)]
    hits = np.array([sum(100 * both > percent * either for both, either in found) for percent in range(50, 100, 5)])
    shares = hits / (reference.max() + prediction.max() - hits)
    yield "ap", ours.ap, float(shares.mean())
    yield "ap50", ours.ap_at(50), float(shares[0])
    yield "ap75", ours.ap_at(75), float(shares[5])


def _iou(one: NDArray, other: NDArray) -> tuple[int, int]:
    return int((one & other).sum()), int((one | other).sum())


def of_probabilities(pair: Pair) -> Iterator[tuple[str, float, float]]:
    """(metric, ours, theirs): torchmetrics and scikit-learn, in double precision."""
    import torch
    from sklearn.metrics import brier_score_loss
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    _, reference, _ = pair
    rng = np.random.default_rng(reference.size)
    raw = rng.random((CLASSES + 1, reference.size)) ** 2 + 0.5 * np.eye(CLASSES + 1)[reference.ravel()].T
    shares = raw / raw.sum(0)
    found = Calibration(CLASSES, softmax=True)
    found.add(shares, reference.ravel())
    truth = (reference.ravel() == 1).astype(int)
    theirs = binary_calibration_error(torch.tensor(shares[1]), torch.tensor(truth), n_bins=BINS)
    yield "ece", found.classes[0].ece, float(theirs)
    yield "brier", found.classes[0].brier, brier_score_loss(truth, shares[1])
    whole = torch.tensor(shares.T), torch.tensor(reference.ravel().astype(int))
    theirs = multiclass_calibration_error(*whole, num_classes=CLASSES + 1, n_bins=BINS)
    yield "case_ece", found.top.ece if found.top else 0.0, float(theirs)
    single = [brier_score_loss(reference.ravel() == n, shares[n]) for n in range(CLASSES + 1)]
    yield "case_brier", found.brier, float(sum(single))


ORACLES: dict[str, Callable[[Pair], Iterator[tuple[str, float, float]]]] = {
    "scikit-learn": of_counts,
    "SciPy's distance transform": of_surfaces,
    "SciPy's components": of_lesions,
    "scikit-learn's clusterings": of_segments,
    "MONAI, and IoUs one by one": of_instances,
    "torchmetrics, scikit-learn": of_probabilities,
}


def agreement(count: int) -> dict[str, Any]:
    """The largest difference of each metric, and from what."""
    found: dict[str, Any] = {}
    for pair in pairs(count):
        for oracle, compare in ORACLES.items():
            for metric, ours, theirs in compare(pair):
                row = found.setdefault(metric, {"from": oracle, "largest": 0.0, "compared": 0})
                row["largest"] = max(row["largest"], abs(ours - theirs))
                row["compared"] += 1
    return {"pairs": count, "differences": found}


def organs(count: int, shape: Sequence[int]) -> list[Pair]:
    """Pairs as they come: balls of a few sizes in a mostly empty scan, predicted a little off."""
    made = []
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    for number in range(count):
        rng = np.random.default_rng([7, number])
        masks = [np.zeros(shape, np.uint8) for _ in range(2)]
        for label in range(1, CLASSES + 1):
            centre, radius = rng.uniform(0.25, 0.75, len(shape)) * shape, min(shape) * rng.uniform(0.08, 0.2)
            for mask, off in zip(masks, (rng.uniform(-2, 2, len(shape)), 0), strict=True):
                far = np.sqrt(((grid - (centre + off).reshape(-1, *(1,) * len(shape))) ** 2).sum(0))
                mask[far < radius + ndimage.gaussian_filter(rng.standard_normal(shape), 2) * 6] = label
        made.append((masks[0], masks[1], (1.0, 1.0, 2.5)[: len(shape)]))
    return made


def ours_on(pair: Pair) -> Row:
    """HD95, ASSD and NSD of every class."""
    found = surfaces(pair)
    return {f"{n}": d.hausdorff(QUANTILE) + d.mean + d.within(2.0) for n, d in found.items()}


def ours_with_counts(pair: Pair) -> Row:
    """The same and every counted metric."""
    counts = Counts.of(pair[0], pair[1], CLASSES)
    return ours_on(pair) | {f"dice {n}": counts.scores(n).dice for n in range(1, CLASSES + 1)}


def monais_on(tensors: Any, spacing: Sequence[float]) -> None:
    """MONAI's HD95, ASSD and NSD of every class."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    compute_hausdorff_distance(*tensors, percentile=95, spacing=spacing)
    compute_average_surface_distance(*tensors, symmetric=True, spacing=spacing)
    compute_surface_dice(*tensors, [2.0] * CLASSES, spacing=spacing)


def monais_with_counts(tensors: Any, spacing: Sequence[float]) -> None:
    """The same and its Dice, IoU and confusion matrix."""
    from monai.metrics import compute_dice, compute_iou, get_confusion_matrix

    monais_on(tensors, spacing)
    compute_dice(*tensors, include_background=False)
    compute_iou(*tensors, include_background=False)
    get_confusion_matrix(*tensors, include_background=False)


def one_hot(pair: Pair) -> Any:
    """What MONAI takes: not counted in its time."""
    import torch

    return tuple(
        torch.tensor(np.stack([mask == n for n in range(CLASSES + 1)])[None].astype(np.float32)) for mask in pair[:2]
    )


def per_second(work: Callable[[], None], cases: int, rounds: int) -> float:
    """Cases a second of processor time: the median of some rounds, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return cases / statistics.median(times[1:])


def speed(rounds: int) -> dict[str, Any]:
    """Cases a second on the same pairs, one thread each."""
    import torch

    torch.set_num_threads(1)
    sets = {
        "random, 12 to 48 voxels a side": list(pairs(40)),
        "balls, 512 x 512": organs(8, (512, 512)),
        "balls, 128 x 128 x 64": organs(4, (128, 128, 64)),
    }
    rows = {}
    for name, some in sets.items():
        some = [pair for pair in some if all((mask == n).any() for mask in pair[:2] for n in range(1, CLASSES + 1))]
        given = [(one_hot(pair), pair[2]) for pair in some]
        row: dict[str, Any] = {"pairs": len(some)}
        for what, ours, theirs in (
            ("surfaces", ours_on, monais_on),
            ("surfaces_and_counts", ours_with_counts, monais_with_counts),
        ):
            mine = per_second(lambda: [ours(pair) for pair in some], len(some), rounds)  # noqa: B023
            monai = per_second(lambda: [theirs(*pair) for pair in given], len(some), rounds)  # noqa: B023
            row[what] = {
                "medseg_cases_per_second": round(mine, 2),
                "monai_cases_per_second": round(monai, 2),
                "ratio": round(mine / monai, 2),
            }
        rows[name] = row
    return rows


def write_pair(folder: Path, side: int, suffix: str) -> None:
    """A prediction and a reference of side³ voxels: the same blobs again and again, one of them a voxel larger."""
    noise = smooth_noise((min(side, 256),) * 3, seed=5, sigma=10.0)
    like = ArrayScan(np.broadcast_to(np.zeros(1, np.uint8), (1, side, side, side)), "pair")
    for name, shift in (("predictions", 4), ("references", 0)):
        mask = create_mask(folder / name / f"case{suffix}", like)
        classes = np.digitize(noise.astype(np.int16) + shift, [170, 200]).astype(np.uint8)
        for start in itertools.product(range(0, side, noise.shape[0]), repeat=3):
            box = Box(start, tuple(s + n for s, n in zip(start, noise.shape, strict=True))).clip(like.shape)
            mask.write(box, classes[tuple(slice(0, n) for n in box.shape)])
        mask.close()


def memory(side: int, suffix: str, where: Path | None, options: Sequence[str]) -> dict[str, Any]:
    """Peak resident memory of a whole ``medseg evaluate``."""
    with scratch(where) as folder:
        write_pair(folder, side, suffix)
        paths = ["--predictions", str(folder / "predictions"), "--references", str(folder / "references")]
        done = watch([*MEDSEG, "evaluate", *paths, *options, "--json"])
        means = done.json()["mean"]
        return {
            "side": side,
            "voxels": side**3,
            "format": suffix,
            "options": list(options),
            "peak_mib": round(done.peak_bytes / 2**20, 1),
            "seconds": round(done.seconds, 1),
            "mean": {name: means[name] for name in ("dice", "hd95_voxels", "assd_voxels") if name in means},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agreement", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--memory", type=int, metavar="SIDE", help="of the cube: 256, 512, 1024")
    parser.add_argument("--suffix", default=".nii", help="of the masks, with --memory: .nii, .nii.gz, .ome.zarr")
    parser.add_argument("--metrics", help="as of medseg evaluate, with --memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="a folder with room for two masks")
    parser.add_argument("--results", type=Path, default=RESULTS / "metrics.json")
    given = parser.parse_args()
    result = load(given.results)
    if given.agreement:
        result["agreement"] = {**agreement(PAIRS), **account()}
    if given.speed:
        result["speed"] = {**speed(given.rounds), **account()}
    if given.memory:
        options = ["--metrics", given.metrics] if given.metrics else []
        row = {**memory(given.memory, given.suffix, given.scratch, options), **account()}
        same = ("side", "format", "options")
        others = [r for r in result.get("memory", []) if any(r[key] != row[key] for key in same)]
        result["memory"] = sorted([*others, row], key=lambda r: (r["side"], r["options"]))
    if not (given.agreement or given.speed or given.memory):
        parser.error("give --agreement, --speed or --memory")
    save(given.results, result)


if __name__ == "__main__":
    main()
