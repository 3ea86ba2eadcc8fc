"""Many cases are prepared by several processes; others may prepare the same ones at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from medseg.datasets.checks.finding import plural
from medseg.errors import MedsegError
from medseg.preparing.request import Request
from medseg.preparing.write import Outcome, prepare_case
from medseg.processes import process_pool, usable_processors

FEW_BYTES = 16 << 20
"""Where nobody says how many processes: cases that take less together are prepared sooner than one is started."""

Watch = Callable[[int, int], None]
"""Takes how many cases are done, and how many there are."""


def prepare(
    requests: Sequence[Request], workers: int = 0, watch: Watch | None = None, verify: bool = False
) -> dict[str, Outcome]:
    """Sees that cases are prepared; says for each name whether it was there, made, or mended.

    Args:
        requests: which.
        workers: processes; 0 is one for each processor that this process may use.
        watch: is told after each case.
        verify: whether to compare what is there with its checksums.

    Raises:
        MedsegError: for the first case that cannot be prepared; those that are done are kept.
    """
    left = {request.case.name: request for request in requests}
    done: dict[str, Outcome] = {}
    for patient in (False, True):  # what another process is at comes last, when it may be done
        for name, outcome in _outcomes(list(left.values()), workers, patient, verify):
            if outcome != "busy":
                done[name] = outcome
                del left[name]
                if watch is not None:
                    watch(len(done), len(requests))
    return done


def account(outcomes: dict[str, Outcome]) -> str:
    """What was done, in a few words: «12 cases prepared, 3 there already»."""
    counts = Counter(outcomes.values())
    mended = f", {plural(counts['mended'], 'damaged case')} made anew" if counts["mended"] else ""
    return f"{plural(counts['made'], 'case')} prepared, {counts['there']} there already{mended}"


def _outcomes(requests: Sequence[Request], workers: int, patient: bool, verify: bool) -> Iterator[tuple[str, Outcome]]:
    count = min(workers or usable_processors(), len(requests))
    if count < 2 or (not workers and _few(requests)):
        for request in requests:
            yield request.case.name, prepare_case(request, patient, verify)
    else:
        yield from _together(requests, count, patient, verify)


def _few(requests: Sequence[Request]) -> bool:
    """Whether all take less than :data:`FEW_BYTES`; no more headers are read than tell."""
    total = 0
    return all((total := total + request.nbytes) < FEW_BYTES for request in requests)


def _together(requests: Sequence[Request], count: int, patient: bool, verify: bool) -> Iterator[tuple[str, Outcome]]:
    """Those of the largest files first, so that the processes end together."""
    import zarr  # noqa: F401 - processes that are forked have it then, and each would load it for half a second

    at_work: dict[Future[Outcome], str] = {}
    pool = process_pool(count)
    try:
        for request in sorted(requests, key=lambda request: -request.stored_bytes):
            at_work[pool.submit(prepare_case, request, patient, verify)] = request.case.name
            if len(at_work) >= 2 * count:
                yield from _finished(at_work)
        while at_work:
            yield from _finished(at_work)
    except BrokenProcessPool:
        raise MedsegError(
            f"a process preparing {' or '.join(list(at_work.values())[:count])} was killed, most likely for want of "
            "memory: what is done is kept; go on with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(at_work: dict[Future[Outcome], str]) -> Iterator[tuple[str, Outcome]]:
    for future in wait(at_work, return_when=FIRST_COMPLETED).done:
        outcome = future.result()
        yield at_work.pop(future), outcome
