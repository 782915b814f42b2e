"""`cuntong sim` as a planner uses it: real processes, on the smallest scenario there is."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
COUNTY = SCENARIOS / "county.toml"
ENGLISH, CHINESE = "C.UTF-8", "zh_CN.UTF-8"
TOGETHER_S = 240.0
LATE = """
extends = "{county}"
[[release]]
name = "march"
bundles = 8
size = "10 GB"
deadlines = {{ county = "10 d", village = "1 h" }}
"""
LONG = """
extends = "{national}"
[run]
days = 2000
"""
PLANNED = """
extends = "{push}"
[[tier]]
tier = "nation"
count = 1
links = [{{ down = "1 Gbit/s", up = "1 Gbit/s" }}]
[[tier]]
tier = "county"
count = 6
links = [{{ share = "50 %", down = "2 Mbit/s", up = "2 Mbit/s" }}, {{ share = "50 %", down = "100 Mbit/s", up = "100 Mbit/s" }}]
store = "8 TB"
dish = "100 %"
[[release]]
name = "films"
bundles = 4
size = "4 TB"
tiers = ["county"]
deadlines = {{ county = "60 d" }}
"""


def started(*arguments: str | Path, language: str = ENGLISH) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuntong_tools", "sim", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LANG": language, "LC_ALL": language, "COLUMNS": "80"},
        start_new_session=True,
    )


def group_is_there(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def sim(*arguments: str | Path, code: int = 0, language: str = ENGLISH) -> str:
    """What a command says; that it failed as it shall, with a sentence and without a traceback."""
    process = started(*arguments, language=language)
    out, err = process.communicate(timeout=TOGETHER_S)
    assert process.returncode == code, out + err
    assert "Traceback" not in err
    own_words = [line for line in out.splitlines() if not line.startswith(("Report: ", "报告："))]
    assert max((width(line) for line in own_words), default=0) <= 80
    return out + err


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line.rstrip())


def scenario(folder: Path, text: str) -> Path:
    file = folder / "own.toml"
    names = {"county": COUNTY, "national": SCENARIOS / "national.toml", "push": SCENARIOS / "push-4tb.toml"}  # fmt: skip
    file.write_text(text.format_map(names), encoding="utf-8")
    return file


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    ("language", "told"),
    [(ENGLISH, "All deadlines are met: 168"), (CHINESE, "所有期限都能达到：共 168 个")],
)
def test_run_tells_and_writes_what_it_found(tmp_path: Path, language: str, told: str) -> None:
    out = tmp_path / "out"
    assert told in sim("run", COUNTY, "--out", out, language=language)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert (manifest["seed"], manifest["node_count"], manifest["bundle_count"]) == (1, 22, 8)
    assert told.split("168")[0].split("：")[0] in re.sub(r"\s+", " ", page(out))
    # The other language from the same results.
    other, word = (CHINESE, "所有期限") if language == ENGLISH else (ENGLISH, "All deadlines")
    sim("report", out, language=other)
    assert word in page(out)


def test_missed_deadlines_end_with_1_and_stand_in_a_table(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = sim("run", scenario(tmp_path, LATE), "--out", out, code=1)
    assert "160 of 168 deadlines are missed" in said
    missed = rows(out / "misses.csv")
    assert {row["tier"] for row in missed} == {"village"}
    assert sum(int(float(row["pairs_missed"])) for row in missed) == 160


def test_same_seed_gives_the_same_bytes_for_any_threads_and_another_seed_others(
    tmp_path: Path,
) -> None:
    found = []
    for number, options in enumerate((("--threads", "1"), ("--threads", "2"), ("--seed", "2"))):
        sim("run", COUNTY, "--out", tmp_path / str(number), *options)
        found.append((tmp_path / str(number) / "completions.parquet").read_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_compare_takes_results_and_scenarios(tmp_path: Path) -> None:
    sim("run", COUNTY, "--out", tmp_path / "before")
    said = sim("compare", tmp_path / "before", scenario(tmp_path, LATE))
    assert "before" in said
    assert "own" in said
    assert "95.2 %" in said  # 160 of 168.


def test_sweep_makes_a_row_of_each_combination(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sim(
        "sweep", COUNTY, "--set", "tier.village.off_days=0 %,50 %", "--set", "run.policy=star,swarm",
        "--jobs", "2", "--out", out,
    )  # fmt: skip
    found = rows(out / "sweep.csv")
    assert [(row["tier.village.off_days"], row["run.policy"]) for row in found] == [
        ("0 %", "star"), ("0 %", "swarm"), ("50 %", "star"), ("50 %", "swarm"),
    ]  # fmt: skip
    assert {row["pairs"] for row in found} == {"168"}


def test_plan_says_what_each_kind_of_county_needs_and_its_replay_agrees(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = sim("plan", scenario(tmp_path, PLANNED), "--seconds", "20", "--out", out)
    assert "it misses 0 % of the deadlines" in " ".join(said.split())
    made = json.loads((out / "plan.json").read_bytes())
    assert made
    # Only those of 2 Mbit/s need disks, or all get a broadcast.
    assert "2 Mbit/s" in page(out)
    assert "100 Mbit/s" in page(out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "nowhere.toml"), "sim.file-unreadable"),
        (("run", COUNTY, "--policy", "satellite-first"), "sim.no-satellite"),
        (("run", COUNTY, "--policy", "fastest"), "usage"),
        (("run", COUNTY, "--seed", "-1"), "usage"),
        (("run", COUNTY, "--threads", "0"), "usage"),
        (("run", SCENARIOS), "sim."),
        (("plan", SCENARIOS / "push-4tb.toml", "--seconds", "nan"), "usage"),
        (("sweep", COUNTY, "--set", "tier.vilage.dish=1 %"), "sim.no-such-entry"),
        (("sweep", COUNTY, "--set", "tier.village.dish=nan"), "sim."),
        (("sweep", COUNTY, "--set", "dish"), "sim."),
        (("report", SCENARIOS), "sim."),
        (("compare", SCENARIOS), "sim."),
    ],
)
def test_what_cannot_be_done_is_one_sentence_in_both_languages(
    tmp_path: Path, arguments: Sequence[str | Path], code: str
) -> None:
    out = tmp_path / "out"
    words = [*arguments, *(["--out", out] if arguments[0] in ("run", "plan", "sweep") else [])]
    told = []
    for language in (ENGLISH, CHINESE):
        process = started(*words, language=language)
        said, error = process.communicate(timeout=TOGETHER_S)
        assert process.returncode not in (0, 1), said
        assert "Traceback" not in error
        last = re.search(r"\(([a-z.-]+)\)\s*$", error)
        assert last is not None, error
        assert last[1].startswith(code)
        told.append(error)
    assert told[0] != told[1]
    assert re.search("[一-鿿]", told[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_that_is_stopped_leaves_nothing_and_says_so(
    tmp_path: Path, how: signal.Signals
) -> None:
    file = scenario(tmp_path, LONG)
    process = started("run", file, "--out", tmp_path / "out")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(8)
    process.send_signal(how)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said + error
    assert "(usage.stopped)" in error
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


SWEEP = ("--jobs", "2", "--set", "run.seed=1,2,3,4")


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that compute, once there are two of them."""
    deadline = time.monotonic() + TOGETHER_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while True:
        found = [int(word) for word in children.read_text().split() if is_worker(int(word))]
        if len(found) == 2:
            return found
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_worker(process: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def until_gone(leader: int) -> None:
    deadline = time.monotonic() + TOGETHER_S
    while group_is_there(leader):
        assert time.monotonic() < deadline, "some of its processes go on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "is_terminal"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False)]
)  # fmt: skip
def test_sweep_that_is_stopped_leaves_no_process(
    tmp_path: Path, how: signal.Signals, *, is_terminal: bool
) -> None:
    process = started("sweep", scenario(tmp_path, LONG), *SWEEP, "--out", tmp_path / "out")
    workers_of(process)
    if is_terminal:  # It tells all.
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    said, error = process.communicate(timeout=TOGETHER_S)
    assert "Traceback" not in said + error
    if how == signal.SIGKILL:
        assert process.returncode == -how
    else:
        assert process.returncode == 130
        assert "(usage.stopped)" in error
    until_gone(process.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]


def test_sweep_whose_worker_is_ended_from_outside_says_so(tmp_path: Path) -> None:
    process = started("sweep", scenario(tmp_path, LONG), *SWEEP, "--out", tmp_path / "out")
    os.kill(workers_of(process)[0], signal.SIGKILL)
    said, error = process.communicate(timeout=TOGETHER_S)
    assert process.returncode not in (0, 1)
    assert "Traceback" not in said + error
    assert "--jobs" in error
    assert "(sim.worker-lost)" in error
    until_gone(process.pid)
    assert [path.name for path in tmp_path.iterdir()] == ["own.toml"]
