"""What label files and images hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.datasets.checks.facts import Channel, Values
from medseg.datasets.checks.finding import CaseFacts, Expected, Finding, plural
from medseg.datasets.labels import Labels

RARE = 0.05
"""Values between declared ones that hold less than this part of a label's voxels come from interpolation."""
CLEAN = 0.98
"""So much of a set's voxels a few values hold where masks were clean before they were interpolated."""
FEW, MANY = 8, 16
"""Masks with at most so many main values and at least so many in all are taken for interpolated."""
_SHOWN = 6
INTERPOLATED = (
    "values between the declared ones come from interpolation or JPEG: threshold the masks and save them anew"
)
ROUND = "labels must be whole numbers: round or threshold them and save them as integers"


def find(cases: Sequence[CaseFacts], expected: Expected) -> Iterator[Finding]:
    """Of each case, then of the set."""
    for case in cases:
        if case.label is not None and case.label.values is not None:
            yield from _label(case.name, case.label.values, expected.labels)
        if case.readable:
            yield from _nonfinite(case)
    yield from _constants([case for case in cases if case.readable])
    labelled = [case.label.values for case in cases if case.label is not None and case.label.values is not None]
    if labelled and expected.labels is not None:
        yield from _absent(labelled, expected.labels)
    elif labelled:
        yield from _interpolated(labelled)


def counts_of(labelled: Sequence[Values]) -> Counter[int]:
    """Voxels of each value over all label files."""
    total: Counter[int] = Counter()
    for values in labelled:
        total.update(values.counts)
    return total


def declared(labels: Labels) -> dict[int, str]:
    """The values that label files may hold, with the label of each."""
    own = {value: name for name, value in labels.values.items()}
    merged = {value: name for name, more in labels.merged.items() for value in more}
    return {labels.background_value: "background"} | merged | own


def called(labels: Labels) -> dict[int, str]:
    """The values that label files may hold, and what readers call them: of regions, those that a value is in."""
    names = declared(labels)
    if not labels.regions:
        return names
    holders = {part: [name for name, parts in labels.regions.items() if part in parts] for part in labels.foreground}
    return {value: " and ".join(holders.get(name, [name])) for value, name in names.items()}


def foreground(labels: Labels | None) -> set[int] | None:
    """The values that are foreground; None where every value but one is, since labels are not known."""
    if labels is None or labels.instances:
        return None
    names = {*labels.foreground}
    return {value for value, name in declared(labels).items() if name in names}


def _label(name: str, values: Values, labels: Labels | None) -> Iterator[Finding]:
    if values.fractions:
        what = f"{plural(values.fractions, 'label voxel')} of no whole number, such as {values.example}"
        yield Finding("fractions", "error", what, ROUND, name, (), {"voxels": values.fractions})
    if labels is not None and not labels.instances:
        yield from _undeclared(name, values, labels)
    wanted = foreground(labels)
    zero = labels.background_value if labels is not None else 0
    empty = not any(v in wanted if wanted is not None else v != zero for v in values.counts)
    if empty and not values.fractions:
        what = f"the label has no foreground: all of its voxels are {_listed(list(values.counts))}"
        yield Finding("empty_label", "warning", what, "see that nothing is forgotten; such a case is allowed", name)


def _undeclared(name: str, values: Values, labels: Labels) -> Iterator[Finding]:
    known = declared(labels)
    wrong = {value: count for value, count in values.counts.items() if value not in known}
    if not wrong:
        return
    voxels, total = sum(wrong.values()), sum(values.counts.values())
    between = min(known) < min(wrong) and max(wrong) < max(known) and voxels < RARE * total and len(wrong) > 1
    what = (
        f"undeclared label {'values' if len(wrong) > 1 else 'value'} {_listed(list(wrong))} in "
        f"{plural(voxels, 'voxel')} ({voxels / total:.2%}); declared: {_listed(sorted(known))}"
    )
    remedy = INTERPOLATED if between else "declare it in data.labels or mend the file"
    numbers = {"values": {str(v): n for v, n in wrong.items()}, "voxels": voxels, "part": voxels / total}
    yield Finding("undeclared", "error", what, remedy, name, (), numbers)


def _nonfinite(case: CaseFacts) -> Iterator[Finding]:
    channels = case.values
    nonfinite = sum(channel.nonfinite for channel in channels)
    if nonfinite:
        number, (voxel, value) = next((n, c.first) for n, c in enumerate(channels) if c.first is not None)
        what = (
            f"{plural(nonfinite, 'value')} of NaN or inf; the first is {value} at {(number, *voxel)}: (channel, *voxel)"
        )
        yield Finding("nonfinite", "error", what, "replace them, with the value of air for example", case.name)


def _constants(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Channels of one value; a line for the set where one says nothing in most cases, as an alpha channel does."""
    flat = {case.name: [n for n, channel in enumerate(case.values) if is_constant(channel)] for case in cases}
    often = Counter(number for numbers in flat.values() for number in numbers)
    for number, count in sorted(often.items()):
        if len(cases) > 1 and count > len(cases) / 2:
            what = f"channel {number} has one value everywhere in {count} of {len(cases)} cases"
            yield Finding("constant", "warning", what, "leave the channel out: it says nothing")
    for case in cases:
        own = [n for n in flat[case.name] if len(cases) == 1 or often[n] <= len(cases) / 2]
        if own:
            yield _constant(case, own)


def is_constant(channel: Channel) -> bool:
    """Whether all of its finite values are one."""
    return channel.low is not None and channel.low == channel.high


def _constant(case: CaseFacts, flat: Sequence[int]) -> Finding:
    whole = len(flat) == len(case.values)
    labelled = case.label is not None and case.label.values is not None and len(case.label.values.counts) > 1
    which = "the image" if whole else f"channel {_listed(flat)}"
    what = f"{which} has one value everywhere, {case.values[flat[0]].low:g}"
    severity = "error" if whole and labelled else "warning"
    return Finding("constant", severity, what, "get it anew, or leave the case out with data.exclude", case.name)  # type: ignore[arg-type]


def _absent(labelled: Sequence[Values], labels: Labels) -> Iterator[Finding]:
    if labels.instances:
        return
    total, known, words = counts_of(labelled), declared(labels), called(labels)
    for label in labels.foreground:
        own = [value for value, name in known.items() if name == label]
        if not any(total[value] for value in own):
            name = words[own[0]]
            what = f"the label {name!r} (value {_listed(own)}) is declared, and no case has a voxel of it"
            yield Finding("absent_class", "warning", what, "mend its value in data.labels, or drop it")


def _interpolated(labelled: Sequence[Values]) -> Iterator[Finding]:
    """Many values of which a few hold nearly all voxels, and the rest lie between these."""
    total = counts_of(labelled)
    voxels = sum(total.values())
    main: list[int] = []
    held = 0
    for value, count in total.most_common(FEW):
        main.append(value)
        held += count
        if held >= CLEAN * voxels:
            break
    rest = [value for value in total if value not in main]
    if held < CLEAN * voxels or len(total) < MANY or not all(min(main) < value < max(main) for value in rest):
        return
    what = (
        f"label files hold {len(total)} values; {_listed(sorted(main))} hold {held / voxels:.2%} of the voxels and "
        f"{len(rest)} values between them the rest"
    )
    yield Finding("interpolated", "warning", what, INTERPOLATED.replace("declared", "main"))


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (" ..." if len(values) > _SHOWN else "")
