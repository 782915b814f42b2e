"""The same scenario with other values: every combination is a run of its own, on this machine's cores or on a cluster."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib
import importlib.util
import itertools
import math
import multiprocessing
import os
import platform
import queue
import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_, Sentence

from .errors import ResultsError
from .simulate import Wanted
from .write import digest

_COMMA = re.compile(r",(?![^\[]*\])")
"""Between values; not within a list."""
MAX_RUNS = 10_000
"""More is a mistake in a list of values."""

PATIENCE_S = 20
"""Until a Dask scheduler has answered."""

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
        found = [value.strip() for value in _COMMA.split(values)]
        names = [name.strip() for name in key.split(".")]
        if not all(names) or not equals or not all(found) or key.strip() in keys:
            raise ResultsError(
                "sim.bad-setting",
                N_("{setting} isn't a setting such as satellite.rate=8 Mbit/s,20 Mbit/s."),
                setting=setting,
            )
        keys[key.strip()] = found
    count = math.prod(len(values) for values in keys.values())
    if count > MAX_RUNS:
        raise ResultsError(
            "sim.too-many-runs",
            N_("That would be {count} runs; {most} at most."),
            count=count,
            most=MAX_RUNS,
        )
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*keys.values())]


def on_processes(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int
) -> Generator[tuple[int, R], None, None]:
    """Results as they come, with the place of their task.

    Raises:
        ResultsError: `sim.worker-lost`.
        Exception: whatever `work` raises first; what hasn't ended is given up.
    """
    # Forked children would share the locks of threads that they don't have.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=context, initializer=_end_with_parent
    ) as pool:
        try:
            with _signals_kept():
                places = {pool.submit(_told, work, task): place for place, task in enumerate(tasks)}
            for future in concurrent.futures.as_completed(places):
                yield places[future], _or_raise(future.result())
        except BaseException as error:  # Also Ctrl-C, and a caller that has enough.
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ResultsError(
                    "sim.worker-lost",
                    N_("A process that computed a run was ended from outside; perhaps memory ran out. Try again with fewer --jobs."),
                ) from None  # fmt: skip
            raise


def _end_with_parent() -> None:
    """In a worker: see to it that it doesn't outlive who started it; one that waits for work wouldn't notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - it was started.

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Signals that ask for the end wait until this is over: half-started processes would complain.

    Those that are started in here never get Ctrl-C, which a terminal sends to all.
    """
    kept: list[int] = []
    ours = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if callable(handler := signal.getsignal(number))
    }
    for number in ours:
        signal.signal(number, lambda got, _frame: kept.append(got))
    # Other threads of this process get it all the same.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in ours.items():
            signal.signal(number, handler)
        if kept:
            signal.raise_signal(kept[0])


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


def on_cluster(
    work: Callable[[Wanted], R], tasks: Sequence[Wanted], address: str
) -> Generator[tuple[int, R], None, None]:
    """As `on_processes`, on the workers of a Dask scheduler.

    They need the same version of Cuntong, and the scenario's files at the same path; each run is refused where it isn't so.
    A run whose worker dies is begun again on another one.

    Raises:
        ResultsError: `sim.no-dask`, `sim.dask-unreachable`, `sim.dask-no-workers`, `sim.dask-version`,
            `sim.dask-scenario`, `sim.dask-lost`.
        Exception: whatever `work` raises first.
    """
    check_dask()
    distributed: Any = importlib.import_module("distributed")
    with _connected(distributed, address) as client:
        # Asked of workers by name: one that can't load what it gets would end itself, and the sweep would wait for ever.
        versions = client.run(metadata.version, "cuntong", on_error="return")
        if not versions:
            raise ResultsError(
                "sim.dask-no-workers",
                N_("The Dask scheduler at {address} has no workers; start them first."),
                address=address,
            )
        for worker, version in versions.items():
            _check_version(version, worker, metadata.version("cuntong"))
        there = [dataclasses.replace(task, file=task.file.absolute()) for task in tasks]
        same = [_Same(metadata.version("cuntong"), digest(task.scenario())) for task in there]
        # The same arguments give the same result, but never that of an earlier sweep.
        futures = client.map(
            _told, [_run_same] * len(there), [work] * len(there), there, same, pure=False
        )
        places = {future.key: place for place, future in enumerate(futures)}
        try:
            for future in distributed.as_completed(futures):
                try:
                    found = future.result()
                except (distributed.CancelledError, distributed.KilledWorker) as error:
                    raise ResultsError(
                        "sim.dask-lost",
                        N_("The Dask cluster has given up a run: its scheduler, or several workers one after the other, died; perhaps they had too little memory."),
                    ) from error  # fmt: skip
                # Or it would be computed again when the worker that keeps it dies.
                future.release()
                yield places[future.key], _or_raise(found)
        finally:
            client.cancel(futures)


def _connected(distributed: Any, address: str) -> Any:  # noqa: ANN401 - dask may be missing, and has no types.
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            found.put(distributed.Client(address, timeout=PATIENCE_S))
        except (OSError, ValueError) as error:
            found.put(error)

    # In a thread that nobody waits for: at an address where something else answers, such as the scheduler's own web page,
    # the client's time limit doesn't end it.
    threading.Thread(target=connect, daemon=True).start()
    try:
        client = found.get(timeout=2 * PATIENCE_S)
    except queue.Empty:
        client = TimeoutError()
    if isinstance(client, Exception):
        raise ResultsError(
            "sim.dask-unreachable",
            N_("No Dask scheduler answers at {address}: {reason}."),
            address=address,
            reason=str(client) or type(client).__name__,
        ) from client
    return client


@dataclass(frozen=True, slots=True)
class _Same:
    """What has to be the same on a worker: the version of Cuntong, and the scenario with its files."""

    version: str
    scenario_sha256: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error on its way to another process, where it is raised: exceptions with a sentence don't pickle."""

    kind: type[CuntongError]
    sentence: Sentence
    fault: Fault


def _told(work: Callable[..., R], *given: Any) -> R | _Refused:  # noqa: ANN401 - whatever `work` takes.
    try:
        return work(*given)
    except CuntongError as error:
        return _Refused(type(error), error.sentence, error.fault)


def _run_same(work: Callable[[Wanted], R], task: Wanted, same: _Same) -> R:
    """On a worker."""
    _check_same(task, same)
    return work(task)


def _check_same(task: Wanted, same: _Same) -> None:
    # Workers may have come after the others were asked.
    _check_version(metadata.version("cuntong"), platform.node(), same.version)
    try:
        is_same = digest(task.scenario()) == same.scenario_sha256
    except (CuntongError, OSError):
        is_same = False
    if not is_same:
        raise ResultsError(
            "sim.dask-scenario",
            N_("{file} isn't the same on the Dask worker {worker}: the scenario and the files that it names have to be at the same path there."),
            file=str(task.file),
            worker=platform.node(),
        )  # fmt: skip


def _check_version(found: object, worker: str, own: str) -> None:
    if found != own:
        raise ResultsError(
            "sim.dask-version",
            N_(
                "The Dask worker {worker} has Cuntong {version}; here it is {own}. Install the same."
            ),
            worker=worker,
            version=found if isinstance(found, str) else "-",
            own=own,
        )


def _or_raise(found: R | _Refused) -> R:
    if isinstance(found, _Refused):
        told = found.sentence
        raise found.kind(told.code, told.template, fault=found.fault, **told.params)
    return found
