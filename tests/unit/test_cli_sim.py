"""`cuntong sim …`: what it says within 80 columns, what it refuses, and what it doesn't import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_simulations.calibration.calibrate import Calibrated
from cuntong_simulations.calibration.fit import Comparison
from cuntong_simulations.calibration.record import Record
from cuntong_simulations.model import parameters
from cuntong_simulations.results import screen
from cuntong_simulations.results.findings import Findings, Parameter
from cuntong_simulations.results.sweep import combinations, on_processes
from cuntong_simulations.results.write import write
from cuntong_simulations.scenario.changes import change
from cuntong_simulations.scenario.load import load
from cuntong_tools.main import run
from tests.support.outcomes import outcome, scenario, with_everything
from tests.unit.test_sim_results import MEASURED, found

Shell = Callable[..., tuple[int, str, str]]
COUNTY = Path(__file__).parents[2] / "config" / "scenarios" / "county.toml"


@pytest.fixture(params=["en", "zh_CN"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LANGUAGE", request.param)
    monkeypatch.delenv("COLUMNS", raising=False)
    i18n._catalogue.cache_clear()
    yield request.param
    i18n._catalogue.cache_clear()


@pytest.fixture
def shell(language: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `cuntong sim …` in this process."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run(["sim", *map(str, words)])
        out, err = capsys.readouterr()
        # Only the place of a file may be longer than a line.
        assert (
            max((cell_len(line) for line in out.splitlines() if "/" not in line), default=0) <= 80
        )
        return code, out, err

    return call


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = outcome(scenario(**with_everything()))
    write(made, found(made), tmp_path / "results")
    return tmp_path / "results"


def test_report_is_rendered_again_from_what_is_stored(shell: Shell, results: Path) -> None:
    code, out, err = shell("report", results)
    assert (code, err) == (0, "")
    assert "report.html" in out
    assert "512 kbit/s" in (results / "report.html").read_text("utf-8")


def test_runs_stand_side_by_side_four_to_a_table(shell: Shell, results: Path) -> None:
    code, out, err = shell("compare", results, results)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.rstrip().endswith("CNY")]
    assert len(rows) == 1
    _code, out, _err = shell("compare", *[results] * 6)
    assert sum(line.rstrip().endswith("CNY") for line in out.splitlines()) == 2


def test_missing_results_and_scenarios_are_told_in_one_line(shell: Shell, tmp_path: Path) -> None:
    for words, expected in (
        (("report", tmp_path), "sim.no-results"),
        (("compare", tmp_path), "sim.no-results"),
        (("run", tmp_path / "none.toml"), "sim.file-unreadable"),
        (("sweep", tmp_path / "none.toml", "--set", "run.days=1,2"), "sim.file-unreadable"),
        (("sweep", COUNTY, "--set", "run.days"), "sim.bad-setting"),
        (("sweep", COUNTY, "--set", "tier.hamlet.dish=1"), "sim.no-such-entry"),
        (("sweep", COUNTY, "--set", "tier.village.dish=much"), "sim.not-a-share"),
        (("sweep", COUNTY, "--set", "run.dayss=3"), "sim.unknown-key"),
    ):
        code, out, err = shell(*words)
        assert code in (Fault.USAGE.value, Fault.CONFIG.value)
        assert out == ""
        assert err.startswith("cuntong: ")
        assert err.endswith(f"({expected})\n")
        assert err.count("\n") == 1


def test_folder_with_something_else_is_refused_before_anything_runs(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("x")
    for command in (("run", COUNTY), ("sweep", COUNTY, "--set", "run.days=1"), ("plan", COUNTY)):
        code, _out, err = shell(*command, "--out", tmp_path)
        assert (code, err.endswith("(sim.out-taken)\n")) == (Fault.USAGE.value, True)


def test_dask_that_is_not_installed_is_told_before_anything_runs(shell: Shell) -> None:
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError:
        code, _out, err = shell(
            "sweep", COUNTY, "--set", "run.days=1", "--dask", "tcp://127.0.0.1:1"
        )
        assert code == Fault.USAGE.value
        assert err.endswith("(sim.no-dask)\n")


def test_combinations_are_each_with_each_and_nonsense_is_refused() -> None:
    assert combinations(["a=1,2", "b.c = x y, z"]) == [
        {"a": "1", "b.c": "x y"},
        {"a": "1", "b.c": "z"},
        {"a": "2", "b.c": "x y"},
        {"a": "2", "b.c": "z"},
    ]
    for bad in (["a"], ["=1"], ["a="], ["a=1,,2"], ["a=1", "a=2"]):
        with pytest.raises(CuntongError) as caught:
            combinations(bad)
        assert caught.value.code == "sim.bad-setting"
    with pytest.raises(CuntongError) as caught:
        combinations([f"{key}={','.join('12345678')}" for key in "abcdef"])
    assert caught.value.code == "sim.too-many-runs"


def double(number: int) -> int:
    return number * 2


def test_results_of_processes_come_with_the_place_of_their_task() -> None:
    assert dict(on_processes(double, [1, 2, 3], jobs=2)) == {0: 2, 1: 4, 2: 6}


def test_values_are_set_by_tier_by_name_and_by_number() -> None:
    read = load(
        COUNTY,
        {
            "tier.village.dish": "10 %",
            "tier.county.links.1.down": "50 Mbit/s",
            "release.march.size": "100 GB",
            "run.policy": "tree",
            "run.days": "45",
        },
    )
    assert read.tiers[-1].dish == pytest.approx(0.1)
    assert read.tiers[1].links[0].down == 50e6 / 8
    assert read.releases[0].size == 1e11
    assert (read.run.policy, read.run.days) == ("tree", 45)
    assert load(COUNTY).run.days == 30


def test_setting_below_what_is_no_table_is_refused() -> None:
    for key in ("run.days.more", "tier.9.dish", "tier"):
        given = {"run": {"days": 1}, "tier": [{"tier": "village"}]}
        if key == "tier":
            assert change(given, key, "[]") == ("tier",)
            continue
        with pytest.raises(CuntongError) as caught:
            change(given, key, "1")
        assert caught.value.code == "sim.no-such-entry"


def test_calibration_where_the_laboratory_cannot_be_is_refused_in_one_line(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = shell("calibrate", "--out", tmp_path / "out")
    assert (code, out) == (Fault.SYSTEM.value, "")
    assert err.endswith("(lab.no-tool)\n")
    assert err.count("\n") == 1
    (tmp_path / "file").touch()
    assert shell("calibrate", "--out", tmp_path / "file")[0] == Fault.USAGE.value


@pytest.mark.parametrize("largest", [0.034, 0.34])
def test_calibration_says_in_80_columns_whether_the_model_is_near_enough(
    shell: Shell, capsys: pytest.CaptureFixture[str], largest: float
) -> None:
    tiers = [
        Comparison(
            network=name, is_for_fit=name == "R1", tier=tier, measured_mean_s=1234.5,
            least_mean_s=1200.0, most_mean_s=1260.0, computed_mean_s=1150.1, measured_last_s=1300.0,
            computed_last_s=1310.0,
        )
        for name in ("R1", "R1h")
        for tier in ("province", "county", "village")
    ]  # fmt: skip
    measured = msgspec.structs.replace(MEASURED, mean_error_largest=largest)
    made = Calibrated(Record(parameters=parameters.MEASURED, measured=measured), tiers)
    screen.show_calibrated(made)
    out = capsys.readouterr().out
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    rows = [line for line in out.splitlines() if "1234.5" in line]
    assert len(rows) == 6
    assert all(said in rows[0] for said in ("R1", "1200-1260", "1150.1", "-6.8 %", "+0.8 %"))
    assert made.is_met == (largest < 0.05)
    efficiency = f"efficiency {parameters.MEASURED.efficiency:.3g}"
    startup = f"startup {parameters.MEASURED.startup:.3g} s"
    for said in (efficiency, startup, "2026-11-20"):
        assert said in " ".join(out.split())


def test_run_states_its_parameters_and_which_are_its_own(
    shell: Shell, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [
        Parameter(name="eta", value=0.9, origin="calibration.toml"),
        Parameter(name="startup", value=4.0, origin="scenario"),
    ]
    screen.show_run(found(outcome(), calibration=both, measured=MEASURED))
    out = capsys.readouterr().out
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    assert "eta 0.9" in out
    assert "2026-11-20" in out
    assert "6.1 %" in out
    if language == "en":
        assert "startup 4 s (the scenario's own)" in " ".join(out.split())
    screen.show_run(found(outcome(), calibration=both[1:], measured=MEASURED))
    assert "2026-11-20" not in capsys.readouterr().out


def _fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_and_the_daemon_import_nothing_that_calculates() -> None:
    for words in (
        [],
        ["sim"],
        ["sim", "run"],
        ["sim", "plan"],
        ["sim", "calibrate"],
        ["sim", "lab"],
    ):
        code = (
            "import sys, cuntong_daemon.app\n"
            "from cuntong_tools.main import run\n"
            f"run({[*words, '--help']})\n"
            "print({'numpy', 'numba', 'pyarrow', 'matplotlib', 'highspy'} & sys.modules.keys())\n"
        )
        assert _fresh(code).stdout.endswith("set()\n")


@pytest.mark.parametrize("words", [["run", str(COUNTY)], ["plan", str(COUNTY)], ["validate"], ["calibrate"], ["report", "."], ["compare", "."]])  # fmt: skip
def test_without_the_extra_every_command_says_which_to_install(words: list[str]) -> None:
    code = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "from cuntong_tools.main import run\n"
        f"sys.exit(run({['sim', *words]}))\n"
    )
    done = _fresh(code)
    assert done.returncode == Fault.SYSTEM.value
    assert "numpy" in done.stderr
    assert "cuntong[sim]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_findings_survive_the_way_between_processes() -> None:
    import pickle

    got = found(outcome(scenario(**with_everything())))
    again = pickle.loads(pickle.dumps(got))  # noqa: S301
    assert isinstance(again, Findings)
    assert again == got
    assert (
        type(msgspec.structs.asdict(again.manifest.scenario.satellite)["rate"]).__name__ == "Rate"
    )  # type: ignore[type-var]
