"""Work on several processor cores: the one door to processes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from zoobook import arguments


def each(
    work: Callable, tasks: list[tuple], workers: int | None = None, in_order: bool = True, **options: Any
) -> Iterator:
    """What a function gives for each of some tuples of arguments, to which the ``options`` are added, on several cores.

    They are ``workers`` processes, by default as many as there are cores; whoever stops in between, by Ctrl-C or an
    error, stops them too. If not ``in_order``, whatever is done first comes first.
    """
    import joblib  # whose processes, unlike the standard library's, work from notebooks and unguarded scripts

    count = joblib.cpu_count() if workers is None else check_workers(workers)
    pool = joblib.Parallel(min(count, max(len(tasks), 1)), return_as="generator" + "_unordered" * (not in_order))
    with contextlib.closing(pool(joblib.delayed(work)(*task, **options) for task in tasks)) as results:
        yield from results


def check_workers(workers: int | None) -> int | None:
    """A number of processes, or None: all processor cores; else a ``ValueError``."""
    return None if workers is None else arguments.whole("workers", workers, 1, 1000)
