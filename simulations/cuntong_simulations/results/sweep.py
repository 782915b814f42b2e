"""The same scenario with other values: every combination is a run of its own, on this machine's cores or on a cluster."""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from cuntong_protocol.texts import N_

from .errors import ResultsError

MAX_RUNS = 10_000
"""More is a mistake in a list of values."""

T = TypeVar("T")
R = TypeVar("R")


def combinations(settings: Sequence[str]) -> list[dict[str, str]]:
    """Of `key=value,value` each with each, in the order of writing; the last changes fastest.

    Raises:
        ResultsError: `sim.bad-setting`, `sim.too-many-runs`.
    """
    keys: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, values = setting.partition("=")
        found = [value.strip() for value in values.split(",")]
        if not key.strip() or not equals or not all(found) or key.strip() in keys:
            raise ResultsError(
                "sim.bad-setting",
                N_("{setting} isn't a setting such as satellite.rate=8 Mbit/s,20 Mbit/s."),
                setting=setting,
            )
        keys[key.strip()] = found
    made = [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())
    ]  # fmt: skip
    if len(made) > MAX_RUNS:
        raise ResultsError(
            "sim.too-many-runs",
            N_("That would be {count} runs; {most} at most."),
            count=len(made),
            most=MAX_RUNS,
        )
    return made


def on_processes(work: Callable[[T], R], tasks: Sequence[T], jobs: int) -> Iterator[tuple[int, R]]:
    """Results as they come, with the place of their task.

    Raises:
        Exception: whatever `work` raises first; what hasn't begun is given up.
    """
    # Forked children would share the locks of threads that they don't have.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context) as pool:
        places = {pool.submit(work, task): place for place, task in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(places):
                yield places[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def check_dask() -> None:
    """Say it before anything runs.

    Raises:
        ResultsError: `sim.no-dask`.
    """
    if importlib.util.find_spec("distributed") is None:
        raise ResultsError(
            "sim.no-dask",
            N_("--dask needs dask.distributed, which isn't installed; install cuntong[dask]."),
        )


def on_cluster(work: Callable[[T], R], tasks: Sequence[T], address: str) -> Iterator[tuple[int, R]]:
    """As `on_processes`, on the workers of a Dask scheduler, which need the same version of Cuntong.

    Raises:
        ResultsError: `sim.no-dask`, `sim.dask-unreachable`.
        Exception: whatever `work` raises first.
    """
    check_dask()
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ResultsError(
            "sim.dask-unreachable",
            N_("No Dask scheduler answers at {address}: {reason}."),
            address=address,
            reason=str(error) or type(error).__name__,
        ) from error
    with client:
        # The same arguments give the same result, but never that of another version.
        futures = client.map(work, tasks, pure=False)
        places = {future.key: place for place, future in enumerate(futures)}
        try:
            for future in distributed.as_completed(futures):
                yield places[future.key], future.result()
        finally:
            client.cancel(futures)
