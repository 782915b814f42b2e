"""The laboratory in real namespaces: small, and skipped with the reason where the kernel refuses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cuntong_simulations.lab import namespaces

NATION, COUNTY, VILLAGE = "000000000000", "440101000000", "440101001001"
PLOTS = 5
"""Of a report about a public that fetches pages and pings."""
TOPOLOGY = f"""
name = "small"
network = "NETWORK"
[[links]]
nodes = ["{NATION}", "{COUNTY}"]
down_kbit_s = 8000
up_kbit_s = 8000
delay_ms = 5
[[links]]
nodes = ["{VILLAGE}"]
down_kbit_s = 2000
up_kbit_s = 2000
delay_ms = 5
"""
SCENARIO = """
name = "small"
pages = "all"
page_every_s = 20.0
baseline_s = 4.0
limit_s = 90.0
[payload]
random_mb = 0.4
files = 2
[[events]]
at_s = 1.0
nodes = "all"
share = 0.5
outage_s = 1.0
"""
TOGETHER_S = 180.0
POLL_S = 0.05
"""How often is looked whether processes are left: orphans tell nobody when they end."""
MISSING = ("(lab.no-tool)", "(lab.no-namespaces)", "(lab.no-tun)")
"""How the one line ends in which the laboratory says what this machine lacks."""


def lab(*arguments: str, temporary: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuntong_tools", "sim", "lab", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LANG": "C.UTF-8"} | ({"TMPDIR": str(temporary)} if temporary else {}),
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a laboratory that shall succeed; where it can't be, the test is skipped with its own words."""
    out, err = process.communicate(timeout=TOGETHER_S)
    said = (err.strip().splitlines() or [""])[-1]
    if process.returncode != 0 and said.endswith(MISSING):
        pytest.skip(said.removeprefix("cuntong: "))
    assert process.returncode == 0, out + err
    return out


@pytest.mark.slow
@pytest.mark.parametrize("network", ["fd77::/64"])
def test_village_behind_a_link_that_breaks_gets_every_file(tmp_path: Path, network: str) -> None:
    (tmp_path / "small.toml").write_text(TOPOLOGY.replace("NETWORK", network))
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    out = tmp_path / "out"
    finish(
        lab("run", str(tmp_path / "small.toml"), "--scenario", str(tmp_path / "scenario.toml"),
            "--out", str(out))
    )  # fmt: skip
    result = json.loads((out / "result.json").read_bytes())
    assert result["last_s"] is not None
    assert [found["code"] for found in result["completions"]] == [COUNTY, VILLAGE]
    copies = {(link["code"], link["direction"]): link["copies"] for link in result["links"]}
    # What the village has crosses the county's link on its way; only the county fetches from the source.
    assert result["copies_out"] == copies[NATION, "up"]
    assert copies[NATION, "up"] < 1.5
    assert min(copies[COUNTY, "down"], copies[COUNTY, "up"], copies[VILLAGE, "down"]) >= 1.0
    public = result["foreground"][0]
    assert public["idle_page_s"]["count"] > 0
    assert public["idle_rtt_ms"]["count"] > 0
    assert len(result["proof"]) == 6
    report = (out / "report.html").read_text(encoding="utf-8")
    assert report.count("<svg") == PLOTS
    assert NATION in report
    assert VILLAGE in report


def _inside(outer: int) -> list[str]:
    """The processes in the namespaces of a laboratory, by what stands in their environments."""
    mark = f"{namespaces.INSIDE}={outer}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # It may end while it is looked at.
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize(
    ("how", "after_s", "code"),
    [
        (signal.SIGINT, 0.0, 130),
        (signal.SIGINT, 1.0, 130),
        (signal.SIGTERM, 0.0, 128 + signal.SIGTERM),
    ],
)
def test_interrupted_laboratory_leaves_no_process_and_no_folder(
    tmp_path: Path, how: signal.Signals, after_s: float, code: int
) -> None:
    (tmp_path / "small.toml").write_text(TOPOLOGY.replace("NETWORK", "10.0.0.0/24"))
    plan, out = str(tmp_path / "small.toml"), str(tmp_path / "out 1")
    process = lab("run", plan, "--out", out, temporary=tmp_path)
    assert process.stdout is not None
    if "proves itself" not in process.stdout.readline():
        finish(process)
    (folder,) = tmp_path.glob("cuntong-lab-*")
    assert folder.name.startswith(f"cuntong-lab-{process.pid}-out_1-")
    assert _inside(process.pid)
    time.sleep(after_s)
    os.killpg(process.pid, how)
    _, said = process.communicate(timeout=TOGETHER_S)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert "(usage.stopped)" in said or how == signal.SIGTERM
    deadline = time.monotonic() + TOGETHER_S
    while left := _inside(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(POLL_S)
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"], said


LOST = """
import os, signal, sys, time
from cuntong_simulations.lab import namespaces
os.environ[namespaces.INSIDE] = "1"
namespaces.isolate([])
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.05)  # What the handler raises in here is lost.
it = Finalized()
try:
    del it
    time.sleep(60)
finally:
    time.sleep(1.5)
    print("cleaned up")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_python_finalizes_something_ends_it_all_the_same(
    how: signal.Signals,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(int(how))],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    ended = (
        -signal.SIGINT if how == signal.SIGINT else 128 + how
    )  # Python ends itself so after KeyboardInterrupt.
    assert (done.returncode, done.stdout) == (ended, "cleaned up\n")


HANGS = """
import os, signal, time
from cuntong_simulations.lab import namespaces
os.environ[namespaces.INSIDE] = "1"
namespaces.HANGS_AFTER_S = 0.5
namespaces.isolate([])
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    print("cleaning up", flush=True)
    time.sleep(60)
"""


def test_cleaning_up_that_hangs_says_where_and_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (1, "cleaning up\n")
    assert 'File "<string>", line 11 in <module>' in done.stderr
