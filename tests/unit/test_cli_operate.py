"""The operators' commands against a real local socket: what they show, in which width, with which exit code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_daemon.control.messages import (
    AuthorityStatus,
    BundleStatus,
    ChildStatus,
    Happening,
    NodeStatus,
    ParentStatus,
    Status,
    StoreStatus,
    SwarmStatus,
    VerifyStep,
    Why,
)
from cuntong_daemon.control.server import Handler, Stream
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import sentence
from cuntong_tools import main as main_module
from cuntong_tools import output
from cuntong_tools.client import complete_bundle
from cuntong_tools.main import SECTIONS, build, run
from cuntong_tools.operate import commands as operate
from tests.support.node import NOW, FakeNode, fake_node, published

AT = int(NOW.timestamp())
OPERA = published(
    "春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）", "spring-opera"
)
FILM = published(
    "臺灣風光紀錄片",
    "taiwan-film",
    category="film/documentary",
    terms={"creator": ("Somebody",), "subject": ("Landscape", "風光")},
)
STATUS = Status(
    node=NodeStatus(code="441900003005", name="石排村", tier="village", uptime_s=93_784),
    parent=ParentStatus(
        code="441900003000",
        address="10.1.2.3:7440",
        state="refused",
        since=AT,
        fallback=True,
        refusal=sentence("node.removed", "removed 2027-03-01: inspection"),
    ),
    authorities=[
        AuthorityStatus(code="000000000000", name="国家中心", state="fresh", signed_at=AT),
        AuthorityStatus(
            code="440000000000",
            state="stale",
            stale_since=AT,
            problem=sentence("trust.stale", "Its timestamp has expired."),
        ),
    ],
    bundles=[
        BundleStatus(id=OPERA.listing.id, title="春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）",
                     revision=3, state="downloading", progress=0.999, bytes_done=1, bytes_total=2,
                     down_bytes_s=61_440, up_bytes_s=0, peers=1, deadline=AT,
                     reason=sentence("selection.audience", "It is meant for this place.")),
        BundleStatus(id=FILM.listing.id, title="臺灣風光紀錄片", state="complete", progress=1.0),
        *(BundleStatus(id=f"x{n}", state="waiting") for n in range(50)),
    ],
    children=[ChildStatus(code="441900003006", connected=True, bundles_done=3), ChildStatus(code="441900003007")],
    store=StoreStatus(used=123_456_789_012, quota=200_000_000_000, free=76_000_000_000),
    swarm=SwarmStatus(down_total=1_500_000, up_total=999, down_rate=61_440),
    repairs=[Happening(at=AT, kind="repair", text=sentence("repair.done", "One piece of {id} was fetched again.", id="a"))],
    notices=[Happening(at=AT, kind="notice", text=sentence("notice.text", "巡检：三月五日"))],
    problems=[sentence("store.full", "The disk is full: free 5 GB.")],
)  # fmt: skip


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LANGUAGE", "en")
    monkeypatch.delenv("COLUMNS", raising=False)
    i18n._catalogue.cache_clear()
    yield
    i18n._catalogue.cache_clear()


async def _status(_params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    return STATUS


async def _why(params: dict[str, Any]) -> object:
    await trio.lowlevel.checkpoint()
    return Why(
        id=params["id"],
        title="书",
        state="waiting",
        wanted=True,
        reasons=[sentence("selection.ordered", "It was ordered here.")],
    )


async def _verify(params: dict[str, Any]) -> AsyncIterator[object]:
    ids = [params["id"]] if "id" in params else ["a", "b"]
    for identifier in ids:
        await trio.lowlevel.checkpoint()
        yield VerifyStep(id=identifier, bytes_done=5, bytes_total=10)
        yield VerifyStep(
            id=identifier,
            bytes_done=10,
            bytes_total=10,
            bad_pieces=2 if identifier == "b" else 0,
            is_done=True,
        )


METHODS: dict[str, Handler] = {"status": _status, "why": _why}
STREAMS: dict[str, Stream] = {"verify": _verify}


class Shell:
    """Runs `cuntong …` in this process against a node."""

    def __init__(self, node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
        self.node = node
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = await trio.to_thread.run_sync(run, [*arguments, "--data", str(self.node.paths.root)])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    async with fake_node(tmp_path, [OPERA, FILM], METHODS, STREAMS) as node:
        yield Shell(node, capsys)


def widest(text: str) -> int:
    return max(cell_len(line) for line in text.splitlines())


async def test_status_fits_80_columns_and_puts_problems_first(shell: Shell) -> None:
    code, out, err = await shell("status")
    assert (code, err) == (0, "")
    assert widest(out) <= 80
    assert out.startswith("! The disk is full")
    for said in (
        "石排村 441900003005",
        "village, up for 1 d 2 h",
        "(fall-back)",
        "removed 2027-03-01: inspection",
        "Its timestamp has expired.",
        "quota 200 GB",
        "99 %",
        "r3",
        "61.4 kB/s",
        "It is meant for this place.",
        "and 12 bundles more",
        "2 children, 1 connected",
        "巡检",
    ):
        assert said in out, said


async def test_status_json_is_what_the_daemon_said(shell: Shell) -> None:
    code, out, _err = await shell("status", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["store"] == {
        "used": 123_456_789_012,
        "quota": 200_000_000_000,
        "free": 76_000_000_000,
    }
    assert document["bundles"][0]["reason"]["code"] == "selection.audience"


async def test_status_why_tells_the_reasons(shell: Shell) -> None:
    code, out, _err = await shell("status", "--why", OPERA.listing.id)
    assert code == 0
    assert "wanted" in out
    assert "- It was ordered here." in out
    code, out, _err = await shell("status", "--why", OPERA.listing.id, "--json")
    assert json.loads(out)["wanted"] is True


async def test_status_watch_shows_until_it_is_stopped(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    code, out, err = await shell("status", "--watch")
    assert (code, err) == (0, "")
    assert "石排村" in out
    code, _out, err = await shell("status", "--watch", "--json")
    assert code == Fault.USAGE.value
    assert "(usage.bad-command-line)" in err


async def test_catalogue_list_and_search(shell: Shell) -> None:
    code, out, _err = await shell("catalogue", "list")
    assert code == 0
    assert widest(out) <= 80
    assert "2 bundles." in out
    assert FILM.listing.id in out
    _code, out, _err = await shell("catalogue", "list", "000000000000/202703/t", "--json")
    assert [entry["id"] for entry in json.loads(out)] == [FILM.listing.id]
    code, out, _err = await shell("catalogue", "search", "戲曲", "晚会", "--json")
    assert [entry["id"] for entry in json.loads(out)] == [OPERA.listing.id]
    code, out, _err = await shell("catalogue", "search", "台湾")
    assert "臺灣風光紀錄片" in out
    code, out, _err = await shell("catalogue", "search", '"*(')
    assert (code, out) == (0, "Nothing in the catalogue holds these words.\n")


async def test_a_long_catalogue_is_listed_over_all_pages(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "MAX_PAGE", 1)
    _code, out, _err = await shell("catalogue", "list", "--json")
    assert len(json.loads(out)) == 2
    _code, out, _err = await shell("catalogue", "list", "000000000000/202703/t")
    assert "1 bundle of 2." in out


async def test_catalogue_show(shell: Shell) -> None:
    code, out, _err = await shell("catalogue", "show", FILM.listing.id)
    assert code == 0
    assert widest(out) <= 80
    assert "Landscape, 風光" in out
    assert "5.0 MB in 12 files, 2.0 MB to fetch" in out
    _code, out, _err = await shell("catalogue", "show", FILM.listing.id, "--json")
    assert json.loads(out)["metadata"]["title"] == "臺灣風光紀錄片"
    code, _out, err = await shell("catalogue", "show", "nothing")
    assert code == Fault.USAGE.value
    assert err == (
        "cuntong: nothing isn't in the catalogue; look for it with: cuntong catalogue search WORDS"
        " (catalogue.unknown-bundle)\n"
    )


async def test_order_and_events(shell: Shell) -> None:
    assert (await shell("events"))[1] == "Nothing has happened yet.\n"
    code, out, _err = await shell("order", FILM.listing.id)
    assert (code, out) == (0, f"{FILM.listing.id} was ordered.\n")
    assert shell.node.catalogue.orders() == {FILM.listing.id}
    _code, out, _err = await shell("catalogue", "search", "台湾")
    assert "ordered" in out
    _code, out, _err = await shell("order", FILM.listing.id, "--cancel")
    assert "taken back" in out
    _code, out, _err = await shell("events")
    out = " ".join(out.split())
    assert out.index("was ordered") < out.index("taken back")
    assert len(json.loads((await shell("events", "--json"))[1])) == 2


async def test_verify_tells_what_is_damaged_by_its_exit_code(shell: Shell) -> None:
    code, out, _err = await shell("verify", "a")
    assert (code, out) == (0, "1 bundle is sound.\n")
    code, out, _err = await shell("verify")
    assert code == Fault.CONTENT.value
    assert out == "b: 2 damaged pieces; they are fetched again.\n1 bundle is sound.\n"
    code, out, _err = await shell("verify", "--json")
    assert [step["bad_pieces"] for step in json.loads(out)] == [0, 2]


async def test_completion_offers_the_catalogues_ids(shell: Shell, tmp_path: Path) -> None:
    def complete(folder: Path) -> list[str]:
        context = click.Context(click.Command("order"))
        context.params["paths"] = type(shell.node.paths)(folder)
        return complete_bundle(context, click.Argument(["bundle_id"]), "000000000000/202703/s")

    assert await trio.to_thread.run_sync(complete, tmp_path) == [OPERA.listing.id]
    assert await trio.to_thread.run_sync(complete, tmp_path / "none") == []


def test_without_a_daemon_one_line_says_how_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--data", str(tmp_path)]) == Fault.TRANSPORT.value
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"cuntong: No daemon answers at {tmp_path}/control.sock; start it with:")
    assert err.endswith(" (control.no-daemon)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stauts"], "No such command 'stauts'."),
        (["order"], "Missing argument 'ID'. See: cuntong order --help"),
        (["status", "--jso"], "--json"),
        (["catalogue", "search", "x", "--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_command_line_gets_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Fault.USAGE.value
    _out, err = capsys.readouterr()
    assert err.startswith("cuntong: ")
    assert err.count("\n") == 1
    assert said in err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--help"]) == 0
    out, _err = capsys.readouterr()
    assert "Show this message and exit." in out
    assert widest(out) <= 80
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cuntong 0.")
    assert run([]) == Fault.USAGE.value


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section[1])
def test_every_part_exports_the_commands_of_the_table(
    section: tuple[str, str, tuple[str, ...]],
) -> None:
    _heading, module, names = section
    exported = [command.name for command in importlib.import_module(module).commands]
    assert exported == list(names)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CuntongError("a.b", "No.", fault=Fault.PEER), 76, "cuntong: No. (a.b)\n"),
        (ExceptionGroup("", [CuntongError("a.b", "No.")]), 70, "cuntong: No. (a.b)\n"),
        (
            ExceptionGroup("", [ValueError(), CuntongError("a.b", "No.", fault=Fault.PEER)]),
            76,
            "cuntong: No. (a.b)\n",
        ),
        (
            OSError(28, "No space left on device", "/data/x"),
            74,
            "cuntong: /data/x: No space left on device (system.enospc)\n",
        ),
        (OSError("strange"), 74, "cuntong: strange (system.error)\n"),
        (click.Abort(), 130, "cuntong: Stopped. (usage.stopped)\n"),
        (click.ClickException("Not so."), 64, "cuntong: Not so. (usage.refused)\n"),
        (
            click.FileError("x", "gone"),
            64,
            "cuntong: Could not open file 'x': gone (usage.refused)\n",
        ),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output.tell_error(error) == code
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> click.Group:
        raise RuntimeError("oops")

    monkeypatch.setattr(main_module, "build", fail)
    assert run(["status"]) == Fault.OURS.value
    err = capsys.readouterr().err
    assert "RuntimeError: oops" in err
    assert err.endswith("(internal.fault)\n")


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """`cuntong completion bash | true`, with a pipe that is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                "from cuntong_tools.main import main; main()",
                "completion",
                "bash",
            ],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert ended.stderr == b""


def test_clicks_own_texts_come_from_our_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "zh_CN" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    texts = Catalog("zh_CN")
    texts.add("Show this message and exit.", "显示这段说明，然后退出。" * 6)
    texts.add("Usage:", "用法：")
    with (folder / "cuntong.mo").open("wb") as file:
        write_mo(file, texts)
    monkeypatch.setattr(main_module, "LOCALE_DIR", tmp_path)
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    main_module.set_up_language()
    out = click.Command("status").get_help(click.Context(click.Command("status")))
    assert out.startswith("用法：")
    assert "显示这段说明" in out
    assert widest(out) <= 80
    monkeypatch.undo()
    main_module.set_up_language()


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_scripts(shell_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell_name]) == 0
    out = capsys.readouterr().out
    assert f"_CUNTONG_COMPLETE={shell_name}_complete" in out
    if shell_name == "bash":
        subprocess.run(["bash", "-n"], input=out, text=True, check=True, timeout=60)


def test_the_shell_is_offered_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_CUNTONG_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "cuntong catalogue s")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit) as caught:
        run([])
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out.split() == ["plain,search", "plain,show"]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("春节戏曲晚会", 8, ["春节戏曲", "晚会"]),
        ("春节戏曲，晚会", 8, ["春节戏", "曲，晚会"]),  # No line begins with a comma,
        ("春节（戏曲）", 6, ["春节", "（戏", "曲）"]),  # or ends with an opening bracket.
        ("用 cuntong status 查看", 12, ["用 cuntong", "status 查看"]),
        ("unbreakableword x", 5, ["unbreakableword", "x"]),
        ("", 10, []),
    ],
)
def test_wrapping_counts_columns(text: str, width: int, lines: list[str]) -> None:
    assert output.wrap_cells(text, width) == lines


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_500, "1.0 MB"), (123_456, "123 kB"),
     (1.5e12, "1.5 TB"), (9e20, "900000 PB")],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert output.format_bytes(count) == text


def test_numbers_for_people() -> None:
    assert output.format_percent(0.9999) == "99 %"
    assert output.format_percent(7) == "100 %"
    assert output.format_rate(0) == "-"
    assert output.format_time(1 << 60) == "-"
    assert [output.format_duration(s) for s in (59, 61, 3661, 90_000)] == [
        "59 s",
        "1 min 1 s",
        "1 h 1 min",
        "1 d 1 h",
    ]


def test_all_texts_of_all_commands_fit_and_are_there() -> None:
    """Each command and option has a help text; the pages fit 80 columns."""

    def walk(command: click.Command, path: str) -> None:
        context = click.Context(command, info_name=path)
        context.formatter_class = output.WideHelpFormatter
        page = command.get_help(context)
        assert widest(page) <= 80, page
        assert command.help, path
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (path, option.name)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk(child, f"{path} {name}")

    for command in operate.commands:
        walk(command, f"cuntong {command.name}")
    assert build().help
