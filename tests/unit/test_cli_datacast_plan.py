"""`cuntong datacast plan`: what it reckons, in 80 columns, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_protocol.bundle.metadata import Licence
from cuntong_protocol.errors import Fault
from cuntong_tools.datacast.plan import MOST_BUNDLES, parse_fade, plan
from cuntong_tools.main import set_up_language
from cuntong_tools.output import tell_error
from cuntong_tools.sizes import parse_size
from tests.support.node import fake_node, published

OPERA = published("春节戏曲晚会", "spring-opera")
NOTICE = published("通知", "notice", priority=8)
SECRET = published("内部资料", "secret", licence=Licence(kind="restricted", scope=("44",)))

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.delenv("COLUMNS", raising=False)
    i18n._catalogue.cache_clear()
    yield
    i18n._catalogue.cache_clear()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `cuntong datacast plan …` in this process; no daemon answers in its folder."""

    def run(*arguments: str) -> tuple[int, str, str]:
        set_up_language()
        words = [*arguments, "--data", str(tmp_path)]
        try:
            code = plan.main(words, "cuntong datacast plan", standalone_mode=False)
        except BaseException as error:  # noqa: BLE001 - as the program's edge does.
            code = tell_error(error)
        out, err = capsys.readouterr()
        assert max((cell_len(line) for line in out.splitlines()), default=0) <= 80
        return int(code or 0), out, err

    return run


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[None]:
    async with fake_node(tmp_path, [OPERA, NOTICE, SECRET]):
        yield


def reckoned(shell: Shell, *arguments: str) -> dict[str, Any]:
    code, out, err = shell(*arguments, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def test_sizes_need_no_daemon_and_are_told_by_what_was_typed(shell: Shell) -> None:
    code, out, err = shell("--size", "64MB", "--size", "10MiB", "--rate", "20000", "--loss", "5")
    assert (code, err) == (0, "")
    heading, first, second, together, *notes = out.splitlines()
    assert heading.split() == ["Bundle", "50", "%", "90", "%", "99", "%", "99.5", "%", "Sent"]
    assert first.startswith("64MB ")
    assert second.startswith("10MiB ")
    assert together.startswith("all of them ")
    assert " ".join(notes) == (
        "The time from when sending begins until so many of 300 receivers have it. "
        "Sent: until 99.5 % have it, as a multiple of the size."
    )


def test_one_bundle_alone_takes_what_the_rate_allows(shell: Shell) -> None:
    found = reckoned(shell, "--size", "100MB", "--rate", "20000")
    (only,) = found["bundles"]
    # 4.9 % go for headers and digests, 3 % for the catalogue.
    assert only["seconds"]["50"] == pytest.approx(100e6 / 2.5e6 * 1.049 / 0.97, rel=0.02)
    assert only["seconds"]["99.5"] <= 1.03 * only["seconds"]["50"]
    assert only["sent_bytes"] / 100e6 == pytest.approx(1.01, abs=0.02)
    assert found["together"] == only | {"id": ""}
    code, out, _err = shell("--size", "100MB", "--rate", "20000")
    assert code == 0
    assert "all of them" not in out


def test_worse_weather_and_less_of_the_air_take_longer(shell: Shell) -> None:
    words = ["--size", "300MB", "--rate", "20000", "--receivers", "200"]

    def seconds(*more: str) -> list[float]:
        (only,) = reckoned(shell, *words, *more)["bundles"]
        found = list(only["seconds"].values())
        assert found == sorted(found)
        return found

    clear = seconds()
    assert seconds("--loss", "20")[0] > 1.2 * clear[0]
    faded = seconds("--fade", "5min/h")
    assert faded[0] == pytest.approx(clear[0], rel=0.02)
    assert faded[-1] > clear[-1] + 200
    assert seconds("--share", "25")[0] == pytest.approx(4 * clear[0], rel=0.02)
    assert seconds("--seed", "1") == clear


def test_another_seed_is_other_weather_of_the_same_kind(shell: Shell) -> None:
    words = ["--size", "300MB", "--rate", "20000", "--loss", "5", "--fade", "2min/10min"]
    one, again, other = (reckoned(shell, *words, "--seed", seed) for seed in "112")
    assert one == again
    of_one, of_other = (it["bundles"][0]["seconds"] for it in (one, other))
    assert of_one != of_other
    assert of_one["90"] == pytest.approx(of_other["90"], rel=0.2)


def test_an_urgent_set_comes_in_two_slots(shell: Shell) -> None:
    words = ["--size", "1GiB", "--rate", "20000", "--loss", "0.1", "--fade", "2min/h"]
    (only,) = reckoned(shell, *words, "--urgent")["bundles"]
    assert only["seconds"]["50"] < 9 * 60
    assert 20 * 60 < only["seconds"]["99.5"] <= 22 * 60
    assert only["sent_bytes"] <= 1.32 * (1 << 30)


def test_where_too_much_is_lost_it_says_so_instead_of_a_time(shell: Shell) -> None:
    words = ["--size", "10MB", "--rate", "2000", "--loss", "90", "--fade", "30min/h"]
    code, out, err = shell(*words, "--receivers", "50")
    assert (code, err) == (0, "")
    assert " - " in out.splitlines()[1]
    assert out.endswith("-: not within 16 passes; too much is lost.\n")
    (only,) = reckoned(shell, *words, "--receivers", "50")["bundles"]
    assert only["seconds"]["99.5"] is None


def test_a_set_of_terabytes_is_reckoned_in_fewer_blocks(shell: Shell) -> None:
    found = reckoned(
        shell, "--size", "2TB", "--size", "1GB", "--rate", "20000", "--fade", "2min/h", "--receivers", "9"
    )  # fmt: skip
    large, small = found["bundles"]
    assert large["seconds"]["99"] / 86_400 == pytest.approx(10.9, abs=0.4)
    assert small["seconds"]["99"] < 86_400
    assert found["together"]["seconds"]["99"] >= large["seconds"]["99"]


async def test_ids_take_their_size_and_priority_from_the_catalogue(
    shell: Shell, node: None
) -> None:
    words = [OPERA.listing.id, NOTICE.listing.id, "--size", "1MB", "--rate", "2000"]
    code, out, err = await trio.to_thread.run_sync(shell, *words)
    assert (code, err) == (0, "")
    assert "2.0 MB" in out
    code, out, _err = await trio.to_thread.run_sync(shell, *words, words[0], "--json")
    found = json.loads(out)
    assert [(it["id"], it["size"]) for it in found["bundles"]] == [
        (OPERA.listing.id, 2_000_000),
        (NOTICE.listing.id, 2_000_000),
        ("1MB", 1_000_000),
    ]
    # The notice is urgent: it has 60 % of the air, and two others share the rest.
    opera, notice, _size = found["bundles"]
    assert notice["seconds"]["50"] < 0.8 * opera["seconds"]["50"]


async def test_what_is_never_cast_or_not_listed_is_refused(shell: Shell, node: None) -> None:
    code, _out, err = await trio.to_thread.run_sync(shell, SECRET.listing.id, "--rate", "2000")
    assert code == Fault.REFUSED.value
    assert err.endswith("(datacast.restricted)\n")
    code, _out, err = await trio.to_thread.run_sync(shell, "nothing", "--rate", "2000")
    assert code == Fault.USAGE.value
    assert err.endswith("(catalogue.unknown-bundle)\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--rate", "2000"], 64, "Name bundles of the catalogue, or give sizes with --size."),
        (["--size", "1MB"], 64, "'--rate'"),
        (["--size", "1MB", "--rate", "1"], 64, "(usage.bad-command-line)"),
        (["--size", "1MB", "--rate", "2000", "--loss", "91"], 64, "0<=x<=90"),
        (["--size", "1MB", "--rate", "2000", "--receivers", "0"], 64, "--receivers"),
        (["--size", "many", "--rate", "2000"], 64, "many isn't a size such as"),
        (["--size", "1MB", "--rate", "2000", "--fade", "often"], 64, "(datacast.bad-fade)"),
        (["--size", "1MB", "--rate", "2000", "--fade", "1h/h"], 64, "(datacast.endless-fade)"),
        (["--size", "9TB", "--rate", "2000"], 64, "(datacast.plan-too-long)"),
        (["x"] * (MOST_BUNDLES + 1) + ["--rate", "2000"], 64, "(datacast.plan-too-many)"),
        (["x", "--rate", "2000"], 69, "(control.no-daemon)"),
    ],
)
def test_what_cannot_be_reckoned_is_refused_in_one_line(
    words: list[str], code: int, said: str, shell: Shell
) -> None:
    found, out, err = shell(*words)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert said in err


def test_help_fits_80_columns(shell: Shell) -> None:
    code, out, _err = shell("--help")
    assert code == 0
    assert "--fade TIME/TIME" in out


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("1b", 1),
        ("500kB", 500_000),
        ("64 MB", 64_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2tb", 2 * 10**12),
        ("0.5KIB", 512),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "fade"),
    [
        ("2min/h", (120, 3600)),
        ("30s/10min", (30, 600)),
        ("1.5 h / d", (5400, 86_400)),
        ("0s/h", (0, 3600)),
        ("5M/2H", (300, 7200)),
    ],
)
def test_fades_are_read_as_people_write_them(text: str, fade: tuple[float, float]) -> None:
    assert parse_fade(text) == fade
