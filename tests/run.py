"""What `make test` runs: every test, with line coverage and its two gates.

Processes that tests start (daemons, commands) are measured too: coverage's own `.pth` file starts it in
each Python that finds `COVERAGE_PROCESS_START`, and `COVERAGE_FILE` is absolute, so that it doesn't matter
where such a process works. Arguments go to pytest; when they choose among the tests, coverage is shown but
not judged.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA_FILE = ROOT / ".coverage"
SETTINGS = ROOT / "pyproject.toml"
SOURCES = ("protocol", "daemon", "tools", "simulations")
WEAKEST_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Gate:
    """A part of the program and how much of it the tests must run through."""

    name: str
    folder: Path
    minimum_percent: float


GATES = (
    Gate("protocol/", ROOT / "protocol", 95.0),
    Gate("the whole", ROOT, 85.0),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One source file: how many lines can run, and how many did."""

    path: Path
    lines: int
    covered: int


def read_coverage() -> list[Measured]:
    """Count the lines of every file of ours in the combined data of all processes.

    A file that no test ever imported counts too: with no line covered.
    """
    report = coverage.Coverage(data_file=DATA_FILE, config_file=SETTINGS)
    report.load()
    found = []
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            _, lines, _, missing, _ = report.analysis2(str(path))
            found.append(Measured(path, len(lines), len(lines) - len(missing)))
    return found


def percent_of(files: list[Measured]) -> float:
    """Line coverage of these files together; no files are no coverage."""
    return 100.0 * sum(file.covered for file in files) / max(1, sum(file.lines for file in files))


class Gates:
    """A pytest plugin that puts the coverage just above pytest's closing line."""

    def __init__(self) -> None:
        self.missed = False

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        chosen = (
            config.args_source is not pytest.Config.ArgsSource.TESTPATHS
            or config.option.keyword
            or config.option.markexpr
        )
        if config.option.collectonly or not DATA_FILE.exists():
            return
        files = read_coverage()
        terminalreporter.section("line coverage")
        for gate in GATES:
            part = [file for file in files if file.path.is_relative_to(gate.folder)]
            percent = percent_of(part)
            verdict = f"at least {gate.minimum_percent:.0f} % demanded"
            if chosen:
                verdict += ", not judged: only some tests ran"
            elif percent < gate.minimum_percent:
                self.missed = True
                verdict += ": MISSED"
            terminalreporter.write_line(f"{gate.name:<10} {percent:6.2f} %   ({verdict})")
        if self.missed:
            terminalreporter.write_line("Files with the most lines that no test runs:")
            weakest = sorted(files, key=lambda file: file.covered - file.lines)[:WEAKEST_SHOWN]
            for file in weakest:
                terminalreporter.write_line(
                    f"  {file.lines - file.covered:5} of {file.lines:5}  {file.path.relative_to(ROOT)}"
                )


def main(arguments: list[str]) -> int:
    """Run pytest and judge the coverage; the exit code is pytest's, or 1 when a gate was missed."""
    os.chdir(ROOT)
    # Python put tests/ first: its folders must not be found as top-level packages.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tests"]
    for stale in (DATA_FILE, *ROOT.glob(".coverage.*")):
        stale.unlink(missing_ok=True)
    os.environ["COVERAGE_FILE"] = str(DATA_FILE)
    os.environ["COVERAGE_PROCESS_START"] = str(SETTINGS)
    gates = Gates()
    status = pytest.main(
        [
            *("--cov", f"--cov-config={SETTINGS}", "--cov-report="),
            # Most tests wait for something most of the time. A file's tests share what is slow to make.
            *("--numprocesses=auto", "--dist=loadfile"),
            *arguments,
        ],
        plugins=[gates],
    )
    return int(status) or int(gates.missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
