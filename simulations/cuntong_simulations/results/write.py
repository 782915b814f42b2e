"""A run's folder: a table of all hours, small tables for spreadsheets, and the figures from which reports are made.

The folder is written beside its place and renamed: it is there whole, or it isn't there.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cuntong_daemon.files import write_atomically
from cuntong_protocol.divisions import TIER_LABELS
from cuntong_protocol.texts import N_
from cuntong_simulations.model.country import Ints
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.scenario.files import is_utf8, shown_path
from cuntong_simulations.scenario.scenario import Scenario

from .errors import ResultsError
from .findings import Findings, builtins, encode
from .planned import Planned
from .summary import View, chunks

HOURS = "completions.parquet"
BUNDLES = "bundles.csv"
MANIFEST = "manifest.json"
FIGURES = "findings.json"
REPORT = "report.html"
PLAN, ORDERS, ON_AIR = "plan.json", "orders.csv", "on_air.csv"
LIBRARIES = ("numpy", "numba", "highspy", "pyarrow")
"""That calculate: their versions may change the last digit."""

Rows = Iterable[Sequence[Any]]
FILES = frozenset(
    {HOURS, BUNDLES, MANIFEST, FIGURES, REPORT, PLAN, ORDERS, ON_AIR}
    | {f"{name}.csv" for name in ("summary", "reach", "links", "channels", "misses", "bottlenecks", "costs")}
)  # fmt: skip
"""All that a run's folder may hold."""
MOST_IN_PREFIX = 32
"""Characters of a folder's name in that of the one beside it: both have to be short enough."""
SWEEP, RUNS = "sweep.csv", "runs"
SWEEP_FILES = frozenset({SWEEP, RUNS})
"""And a sweep's."""


def digest(scenario: Scenario) -> str:
    """SHA-256 of the scenario, all that it extends put together, and of the files that it names.

    Comments, the order of keys, and where the files lie don't change it.
    """
    given = builtins(scenario)
    for table in (given["places"], given["calibration"], *given["release"]):
        if table and table["file"]:
            with Path(table["file"]).open("rb") as file:
                table["file"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(msgspec.json.encode(given, order="deterministic")).hexdigest()


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    found = {"cuntong": metadata.version("cuntong"), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def check_out(out: Path, files: Set[str] = FILES) -> None:
    """Say it before a run, not after.

    Args:
        out: Where results are to go.
        files: What may be there from before, to be replaced.

    Raises:
        ResultsError: `sim.out-taken`: there is something else; `sim.out-unwritable`, `sim.out-name`.
    """
    if not is_utf8(out):
        raise ResultsError(
            "sim.out-name",
            N_("The name of {folder} isn't UTF-8; name another folder."),
            folder=shown_path(out),
        )
    out = out.resolve()
    # A new folder is made beside it, and takes its place.
    beside = next(one for one in out.parents if one.exists())
    if out.is_mount() or not _can_make_folder(beside):
        raise ResultsError(
            "sim.out-unwritable",
            N_("{folder} can't be made: {beside} isn't a folder that can be written to, or a disk begins there."),
            folder=str(out),
            beside=str(beside),
        )  # fmt: skip
    if not out.exists():
        return
    if not out.is_dir() or any(one.name not in files for one in out.iterdir()):
        raise ResultsError(
            "sim.out-taken",
            N_("{folder} holds something else than the results of a run; name a new folder."),
            folder=str(out),
        )


def write(outcome: Outcome | None, findings: Findings, out: Path, *, report: str = "") -> None:
    """Write a run's folder, in place of the one that is there.

    Args:
        outcome: For the table of hours and the bundles; None leaves them out.
        findings: For the rest.
        out: The folder.
        report: The page, if there is one.

    Raises:
        ResultsError: as `check_out`.
        OSError: nothing is left behind, and what was there still is.
    """
    with _whole(out, FILES) as made:
        _fill(outcome, findings, made, report)


def write_plan(
    planned: Planned,
    out: Path,
    *,
    orders: Rows = (),
    run: tuple[Outcome, Findings] | None = None,
    report: str = "",
) -> None:
    """Write a plan's folder: that of the run in which it was replayed, and what is to be posted and broadcast.

    Args:
        planned: The plan.
        out: The folder.
        orders: Division code, day, disks and bundles of each parcel.
        run: None: there is no plan, so nothing was run.
        report: The page.

    Raises:
        ResultsError: as `check_out`.
        OSError: as `write`.
    """
    with _whole(out, FILES) as made:
        if run is not None:
            _fill(*run, made, "")
        (made / PLAN).write_bytes(encode(planned))
        _write_csv(made / ORDERS, ("code", "day", "disks", "bundles"), orders)
        _write_csv(made / ON_AIR, ("bundle",), ((name,) for name in planned.on_air))
        (made / REPORT).write_text(report, encoding="utf-8")


def write_sweep(runs: Sequence[tuple[dict[str, str], Findings]], out: Path) -> None:
    """Write a table with a row for each run, and below `runs` each run's small files.

    Raises:
        ResultsError: as `check_out`.
        OSError: as `write`.
    """
    with _whole(out, SWEEP_FILES) as made:
        _write_csv(made / SWEEP, *sweep_rows(runs))
        for number, (_settings, findings) in enumerate(runs, 1):
            folder = made / RUNS / f"{number:04d}"
            folder.mkdir(parents=True)
            _fill(None, findings, folder, "")


def write_report(report: str, folder: Path) -> None:
    """Put a report into a run's folder."""
    write_atomically(folder / REPORT, report.encode())


def sweep_rows(
    runs: Sequence[tuple[dict[str, str], Findings]],
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Heads and rows: what was set, and what came of it."""
    keys = tuple(runs[0][0])
    tiers = [tier for tier in TIER_LABELS if any(one.tier == tier for _s, found in runs for one in found.arrivals)]  # fmt: skip
    heads = ("run", *keys, "pairs", "pairs_missed", *(f"{tier}_share_end" for tier in tiers), "cost")  # fmt: skip
    rows = [
        (
            number,
            *settings.values(),
            findings.pairs,
            findings.missed,
            *(findings.share_at_end(tier) for tier in tiers),
            findings.cost,
        )
        for number, (settings, findings) in enumerate(runs, 1)
    ]
    return heads, rows


def _can_make_folder(beside: Path) -> bool:
    try:
        Path(tempfile.mkdtemp(prefix=".cuntong-", dir=beside)).rmdir()
    except OSError:
        return False
    return True


@contextmanager
def _whole(out: Path, files: Set[str]) -> Iterator[Path]:
    """A folder to be filled, which then takes the place of `out`, or is removed when that fails."""
    check_out(out, files)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name[:MOST_IN_PREFIX]}-", dir=out.parent))
    try:
        made.chmod(0o777 & ~_umask())
        yield made
        _put_in_place(made, out)
    except BaseException:  # Also Ctrl-C: nothing half-written stays.
        shutil.rmtree(made, ignore_errors=True)
        raise


def _fill(outcome: Outcome | None, findings: Findings, folder: Path, report: str) -> None:
    if outcome is not None:
        _write_hours(outcome, folder / HOURS)
        _write_csv(folder / BUNDLES, *_bundles(outcome))
    for name, (heads, rows) in _tables(findings).items():
        _write_csv(folder / f"{name}.csv", heads, rows)
    figures = builtins(findings)
    del figures["manifest"]
    (folder / FIGURES).write_bytes(msgspec.json.encode(figures))
    (folder / MANIFEST).write_bytes(encode(findings.manifest))
    if report:
        (folder / REPORT).write_text(report, encoding="utf-8")


def _put_in_place(made: Path, out: Path) -> None:
    if not out.exists():
        made.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name[:MOST_IN_PREFIX]}-", dir=out.parent))
    out.rename(old)
    try:
        made.rename(out)
    except BaseException:  # Also Ctrl-C: what was there before is there again.
        old.rename(out)
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_csv(path: Path, heads: Sequence[str], rows: Rows) -> None:
    # Spreadsheets take a file for UTF-8 only when it begins with a byte order mark.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows([_cell(cell) for cell in row] for row in rows)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1e6 else f"{value:.6g}"
    return "" if value is None else value


def _tables(findings: Findings) -> dict[str, tuple[tuple[str, ...], Rows]]:
    def ends(estimate: Any) -> tuple[float | None, ...]:  # noqa: ANN401 - an Estimate or None.
        return (
            (None, None, None)
            if estimate is None
            else (estimate.value, estimate.low, estimate.high)
        )

    def value(estimate: Any) -> float | None:  # noqa: ANN401 - likewise.
        return None if estimate is None else estimate.value

    return {
        "summary": (
            (
                "release", "tier", "places", "share_end", "share_end_low", "share_end_high", "deadline_days",
                "share_deadline", "share_deadline_low", "share_deadline_high", "p50_days", "p50_days_low",
                "p50_days_high", "p90_days", "p99_days", "last_days", "pairs", "pairs_missed", "pairs_undecided",
            ),
            (
                (
                    one.release, one.tier, one.places, *ends(one.end), one.deadline_days, *ends(one.due),
                    *ends(one.p50), value(one.p90), value(one.p99), one.last_days, one.pairs, one.missed,
                    one.undecided,
                )
                for one in findings.arrivals
            ),
        ),
        "reach": (
            (
                "release", "tier", "link", "places", "bytes_wanted", "bytes_a_day", "least_days", "deadline_days",
                "share_deadline", "p50_days",
            ),
            (
                (
                    one.release, one.tier, one.link, one.places, one.volume_bytes, one.day_bytes, one.least_days,
                    one.deadline_days, value(one.due), value(one.p50),
                )
                for one in findings.reaches
            ),
        ),
        "links": (
            (
                "tier", "link", "places", "down_bytes", "down_room_bytes", "up_bytes", "up_room_bytes", "use",
                "highest_day", "highest_use",
            ),
            (
                (
                    one.tier, one.link, one.places, one.down_bytes, one.down_room, one.up_bytes, one.up_room,
                    one.use, one.highest_day, one.highest_use,
                )
                for one in findings.links
            ),
        ),
        "channels": (
            ("tier", "carrier", "bytes"),
            ((one.tier, one.carrier, one.bytes) for one in findings.carried),
        ),
        "misses": (
            ("release", "tier", "province", "link", "pairs", "pairs_missed"),
            (
                (one.release, one.tier, one.province, one.link, one.pairs, one.missed)
                for one in findings.misses
            ),
        ),
        "bottlenecks": (
            ("province", "tier", "link", "cause", "node_hours", "places"),
            (
                (one.province, one.tier, one.link, one.cause, one.node_hours, one.places)
                for one in findings.held
            ),
        ),
        "costs": (
            ("item", "quantity", "unit", "price", "cost"),
            ((one.item, one.quantity, one.unit, one.price, one.cost) for one in findings.costs),
        ),
    }  # fmt: skip


def _bundles(outcome: Outcome) -> tuple[tuple[str, ...], Rows]:
    bundles = outcome.bundles
    releases = outcome.country.scenario.releases
    heads = ("bundle", "release", "bytes", "priority", "released_h", *(f"deadline_{tier}_h" for tier in TIER_LABELS))  # fmt: skip
    return heads, (
        (
            name,
            releases[bundles.release[b]].name,
            float(bundles.size[b]),
            int(bundles.priority[b]),
            float(bundles.released_s[b]) / 3600,
            *(
                None if np.isnan(due) else float(due) / 3600
                for due in bundles.deadline_s[b].tolist()
            ),
        )
        for b, name in enumerate(bundles.names)
    )


def _write_hours(outcome: Outcome, path: Path) -> None:
    """A row for each place, a column for each bundle: hours after the start.

    Null: it doesn't want the bundle. Infinite: not by the end; so it sorts behind every hour.
    """
    pa: Any = importlib.import_module("pyarrow")
    pq: Any = importlib.import_module("pyarrow.parquet")

    view = View(outcome)
    country = outcome.country
    every: Ints = np.arange(len(outcome.bundles.names), dtype=np.int32)
    word = pa.dictionary(pa.int32(), pa.string())
    links = sorted({link for _tier, link in view.kinds})
    link_of_class = np.array([links.index(link) for _tier, link in view.kinds], np.int32)
    schema = pa.schema(
        [
            ("code", pa.string()),
            ("tier", word),
            ("province", word),
            ("link", word),
            ("weight", pa.float32()),
            *((name, pa.float32()) for name in outcome.bundles.names),
        ]
    )
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=["tier", "province", "link"],
        # Hours that siblings share differ in their last bytes only: together, these compress well.
        use_byte_stream_split=[*outcome.bundles.names],
    ) as writer:
        for nodes in chunks(country.node_count):
            wants = view.wanted(nodes, every)
            hours = outcome.done_h[nodes]
            hours = np.where(np.isnan(hours), np.float32(np.inf), hours)
            columns = [
                pa.array([f"{code:012d}" for code in country.code[nodes].tolist()]),
                _words(country.tier[nodes], TIER_LABELS),
                _words(view.province_of[nodes], view.province_labels),
                _words(link_of_class[country.node_class[nodes]], links),
                pa.array(country.weight[nodes].astype(np.float32)),
                *(
                    pa.array(np.ascontiguousarray(hours[:, b]), mask=~wants[:, b])
                    for b in range(len(every))
                ),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _words(numbers: Any, labels: Sequence[str]) -> Any:  # noqa: ANN401 - arrays of NumPy and of Arrow.
    pa: Any = importlib.import_module("pyarrow")
    return pa.DictionaryArray.from_arrays(pa.array(np.asarray(numbers, np.int32)), [*labels])
