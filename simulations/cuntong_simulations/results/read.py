"""Reading a run's folder again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cuntong_protocol.texts import N_

from .errors import ResultsError
from .findings import VERSION, Findings, convert
from .planned import Planned
from .write import FIGURES, MANIFEST, PLAN


def is_run(folder: Path) -> bool:
    """Whether it looks like a run's folder."""
    return (folder / MANIFEST).is_file()


def read_plan(folder: Path) -> Planned | None:
    """The plan, or why there is none; None: it was a plain run.

    Raises:
        ResultsError: `sim.results-unreadable`.
    """
    if not (folder / PLAN).is_file():
        return None
    try:
        return convert(msgspec.json.decode((folder / PLAN).read_bytes()), Planned)
    except (OSError, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise _unreadable(folder) from error


def read(folder: Path) -> Findings:
    """The figures of a run.

    Raises:
        ResultsError: `sim.no-results`, `sim.results-unreadable`.
    """
    if not is_run(folder):
        raise ResultsError(
            "sim.no-results",
            N_("{folder} holds no results; `cuntong sim run … --out` writes them."),
            folder=str(folder),
        )
    try:
        figures = msgspec.json.decode((folder / FIGURES).read_bytes())
        figures["manifest"] = msgspec.json.decode((folder / MANIFEST).read_bytes())
        found = convert(figures, Findings)
        is_known = found.manifest.version == VERSION
    except (OSError, msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        is_known = False
    if not is_known:
        raise _unreadable(folder)
    return found


def _unreadable(folder: Path) -> ResultsError:
    return ResultsError(
        "sim.results-unreadable",
        N_("The results in {folder} are damaged or from another version; run the scenario again."),
        folder=str(folder),
    )
