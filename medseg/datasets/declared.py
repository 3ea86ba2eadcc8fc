"""Labels as data sets and configs declare them: a value, or several, for each name.

    {background: 0, tumour: [2, 1], organ: 3}            merged: 1 and 2 are learned as one label, written as 2
    {background: [0, 4], organ: 3}                       dropped: 4 is background
    {background: 0, organ: 3, ignore: 255}               255 is neither learned from nor scored
    {background: 0, whole: [1, 2, 3], core: [2, 3]}      regions, since 2 and 3 are in both: two sigmoid channels

A voxel that a region's channel takes is written as that region's value, a later region over an earlier one, as nnU-Net
does: here 1 for ``whole``, 2 for ``core``. Each is the first value that no later region has, unless
``regions_class_order`` says otherwise (nnU-Net v2, documentation/region_based_training.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medseg.datasets.labels import BACKGROUND, IGNORE, Labels
from medseg.errors import MedsegError, nearest


def declared(
    labels: Mapping[str, int | Sequence[int]],
    foreground: Sequence[str] = (),
    instances: bool = False,
    ignore: Sequence[str] = (),
    order: Sequence[int] | None = None,
) -> Labels:
    """Labels of a declaration.

    Args:
        labels: names with their values. Where two names share a value, all names but the background and what is ignored
            are regions, and each value is a class, called by its number.
        foreground: the labels or regions to segment, in this order; all by default.
        instances: whether the files hold instance numbers.
        ignore: the names whose voxels don't count; the one called «ignore» by default.
        order: ``regions_class_order``: the value that is written for each region.

    Raises:
        MedsegError: as :class:`~medseg.datasets.labels.Labels`, or where a region would never be seen in a mask.
    """
    values = {name: _listed(name, given) for name, given in labels.items()}
    holders = Counter(value for some in values.values() for value in some)
    if order is None and max(holders.values(), default=0) < 2:
        firsts = {name: some[0] for name, some in values.items()}
        merged = {name: some[1:] for name, some in values.items()}
        return Labels(firsts, tuple(foreground), instances, tuple(ignore), merged)
    if instances:
        raise MedsegError("instances: true goes with one foreground label, not with regions")
    ignored = tuple(ignore) or ((IGNORE,) if IGNORE in values and IGNORE not in foreground else ())
    plain = {name: some for name, some in values.items() if name == BACKGROUND or name in ignored}
    regions = {name: some for name, some in values.items() if name not in plain}
    _check_regions(plain, regions, foreground, order)
    writes = dict(zip(regions, order, strict=True)) if order is not None else {}
    return _of_regions(plain, regions, {name: regions[name] for name in foreground or regions}, ignored, writes)


def _listed(name: str, given: Any) -> tuple[int, ...]:
    some = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not some:
        raise MedsegError(f"label {name!r} has no value: give it one, or a list of some")
    return tuple(dict.fromkeys(some))


def _check_regions(
    plain: Mapping[str, tuple[int, ...]],
    regions: Mapping[str, tuple[int, ...]],
    foreground: Sequence[str],
    order: Sequence[int] | None,
) -> None:
    kept = {value: name for name, some in plain.items() for value in some}
    for name, some in regions.items():
        taken = next((value for value in some if value in kept), None)
        if taken is not None:
            raise MedsegError(f"region {name!r} has the value {taken} of {kept[taken]!r}: give it other values")
    for name in foreground:
        if name not in regions:
            known = ", ".join(regions)
            raise MedsegError(f"foreground {name!r} is none of the regions {known}{nearest(name, regions)}")
    if order is not None and len(order) != len(regions):
        raise MedsegError(f"regions_class_order has {len(order)} values for the regions {', '.join(regions)}")


def _of_regions(
    plain: Mapping[str, tuple[int, ...]],
    regions: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    ignore: tuple[str, ...],
    writes: Mapping[str, int],
) -> Labels:
    """Those ``wanted`` of the regions, and the background and ignored labels beside them."""
    parts = {}
    for name, some in wanted.items():
        first = _written(name, wanted, writes.get(name))
        parts[name] = tuple(str(value) for value in (first, *(v for v in some if v != first)))
    numbers = {str(value): value for some in regions.values() for value in some}
    return Labels(
        {name: some[0] for name, some in plain.items()} | numbers,
        tuple(dict.fromkeys(str(value) for some in wanted.values() for value in some)),
        False,
        ignore,
        {name: some[1:] for name, some in plain.items()},
        parts,
    )


def _written(name: str, regions: Mapping[str, tuple[int, ...]], given: int | None) -> int:
    """The value that a region is written as."""
    if given is not None:
        if given not in regions[name]:
            raise MedsegError(f"regions_class_order has {given} for {name!r}, whose values are {list(regions[name])}")
        return given
    names = list(regions)
    later = {value for other in names[names.index(name) + 1 :] for value in regions[other]}
    own = next((value for value in regions[name] if value not in later), None)
    if own is None:
        raise MedsegError(
            f"region {name!r} has no value that is not also in a region after it, so no mask could show it: name "
            "larger regions first, or say with regions_class_order what is written for each"
        )
    return own
