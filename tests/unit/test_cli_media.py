"""`cuntong media` against a real local socket: what came by post, what is still missing, and what to do next."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import structlog
import trio
from rich.cells import cell_len

from cuntong_daemon import i18n
from cuntong_daemon.control.client import ControlClient
from cuntong_daemon.control.media_messages import (
    ImportedBundle,
    ImportedCatalogue,
    ImportedVolume,
    ImportResult,
    ImportStep,
    InPlace,
    MadeReceipt,
    MediaStatus,
    PlaceKnown,
    SetSeen,
    TakenReceipt,
)
from cuntong_daemon.control.server import Outcome
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import new_key
from cuntong_protocol.errors import Fault
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.papers import (
    Receipt,
    Statistics,
    decode_receipt,
    receipt_qr_text,
    receipt_text,
    shortened,
    sign_receipt,
)
from cuntong_protocol.texts import sentence
from cuntong_tools import output, qr
from cuntong_tools.main import run
from cuntong_tools.media import commands as media_commands
from cuntong_tools.media import views
from tests.support.node import fake_node

NATION = "000000000000"
GUANGDONG = "440000000000"
VILLAGE = "441900003005"
OTHER = "441900003007"
MADE_AT = 1_795_000_000
"""2026-11-18 in Shanghai."""
LONG = "春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）"
KEY = new_key()
STATISTICS = Statistics(
    since=MADE_AT - 90 * 86_400,
    until=MADE_AT,
    bundles=312,
    by_satellite=12_000_000_000,
    by_swarm=345_000_000,
    by_medium=678_000_000_000,
    sent=9_000_000,
    problems=("store.disk-full", "clock.wrong"),
)


def receipt(held: int = 3, **changes: Any) -> Receipt:
    fields: dict[str, Any] = {
        "code": VILLAGE,
        "number": 12,
        "made_at": MADE_AT,
        "proven_time": MADE_AT - 5,
        "network": bytes(32),
        "is_all": True,
        "held": shortened({number.to_bytes(8, "big") + bytes(24) for number in range(held)}),
        "orders": (f"{GUANGDONG}/202611/ordered",),
        "free": 320_000_000_000,
        "used": 180_000_000_000,
        "statistics": STATISTICS,
    }
    return Receipt(**(fields | changes))


def text_of(said: Receipt) -> str:
    return receipt_text(sign_receipt(said, KEY, (b"leaf",)))


def made(said: Receipt, *, qr: str | None = None) -> MadeReceipt:
    signed = sign_receipt(said, KEY, (b"leaf",))
    code = receipt_qr_text(signed) if qr is None else qr
    return MadeReceipt(
        code=said.code,
        number=said.number,
        file=f"{said.code}.receipt",
        text=receipt_text(signed),
        qr=code or "",
    )


def bundle(number: int, state: Any, **fields: Any) -> ImportedBundle:
    return ImportedBundle(
        id=f"{GUANGDONG}/202611/bundle-{number}",
        title=f"{number} {LONG}",
        revision=1,
        infohash=f"{number:064x}",
        state=state,
        bytes_total=50_000_000,
        **fields,
    )


WHOLE = ImportedVolume(
    folder="/media/a/cuntong-abcdefghij-2",
    serial="abcdefghij",
    number=2,
    count=5,
    by=GUANGDONG,
    made_at=MADE_AT,
    places=[VILLAGE],
)
RESULT = ImportResult(
    volumes=[
        WHOLE,
        ImportedVolume(
            folder="/media/a/cuntong-abcdefghij-3",
            problem=sentence("media.bad-volume", "What this volume says of itself is damaged."),
        ),
        ImportedVolume(
            folder="/media/a/other",
            is_refused=True,
            problem=sentence("media.foreign", "It is of another network."),
        ),
    ],
    catalogues=[
        ImportedCatalogue(authority=NATION, version=14, version_here=14, state="taken"),
        ImportedCatalogue(authority=GUANGDONG, version=7, version_here=7, state="known"),
        ImportedCatalogue(authority="441900000000", version=2, version_here=3, state="older"),
        ImportedCatalogue(authority="450000000000", state="foreign"),
        ImportedCatalogue(
            authority="441900003000",
            version=3,
            state="refused",
            problem=sentence("trust.bad-signature", "A signature is wrong."),
        ),
    ],
    bundles=[
        bundle(1, "complete", bytes_taken=50_000_000),
        bundle(2, "partial", bytes_taken=49_000_000, bytes_missing=1_000_000),
        bundle(3, "here"),
        bundle(4, "offered", bytes_taken=50_000_000),
        bundle(5, "unwanted", reason=sentence("selection.category", "Not subscribed.")),
        ImportedBundle(infohash="6" * 64, state="unknown"),
        bundle(7, "refused", reason=sentence("bundle.bad-torrent", "The torrent is damaged.")),
        bundle(8, "complete", bytes_taken=50_000_000, is_in_place=True),
    ],
    receipts=[
        TakenReceipt(code=OTHER, number=3, payloads=17, file="/media/a/441900003007.receipt"),
        TakenReceipt(
            file="/media/a/x.receipt",
            problem=sentence("media.bad-receipt", "This is not a receipt."),
        ),
    ],
    sets=[SetSeen(serial="abcdefghij", by=GUANGDONG, made_at=MADE_AT, count=5, imported=[2, 3], missing=[1, 4, 5])],
    receipt_file="/media/a/441900003005.receipt",
    bytes_read=199_000_000,
    bytes_bad=1_000_000,
    problems=[sentence("media.disk-full", "The disk is full.")],
)  # fmt: skip
STATUS = MediaStatus(
    running=ImportStep(phase="reading", folder="/media/a/cuntong-abcdefghij-2", number=2, count=5, id="x",
                       title=LONG, bytes_done=21_000_000, bytes_total=50_000_000),
    sets=RESULT.sets,
    in_place=[InPlace(id=f"{GUANGDONG}/202611/film", title=LONG, folder="/media/a/cuntong-abcdefghij-2", size=4_200_000_000)],
    offers=2,
    places=[
        PlaceKnown(code=VILLAGE, how="receipt", at=MADE_AT, payloads=312, number=12, is_all=True, free=320_000_000_000,
                   used=180_000_000_000, orders=[f"{GUANGDONG}/202611/{n}" for n in range(12)], statistics=STATISTICS),
        PlaceKnown(code=OTHER, how="link", at=MADE_AT, payloads=17, free=1_000_000),
        PlaceKnown(code="441900003008"),
    ],
    watched=["/media", "/run/media"],
)  # fmt: skip


class Shell:
    """Runs `cuntong media …` in this process against a node that answers what it was told."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.paths = DataPaths(folder / "data")
        self.paths.root.mkdir()
        self.result = RESULT
        self.steps: list[ImportStep] = []
        self.made = made(receipt())
        self.status = STATUS
        self.taken: TakenReceipt | MediaError = TakenReceipt(code=VILLAGE, number=12, payloads=3)
        self.stopped = 2
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._capsys = capsys

    def handlers(self) -> dict[str, Any]:
        def handler(method: str, answer: Any) -> Any:
            async def handle(params: dict[str, Any]) -> object:
                await trio.lowlevel.checkpoint()
                self.asked.append((method, params))
                found = answer()
                if isinstance(found, MediaError):
                    raise found
                return found

            return handle

        answers = {
            "media.report": lambda: self.made,
            "media.receipt": lambda: self.taken,
            "media.status": lambda: self.status,
            "media.eject": lambda: {"stopped": self.stopped},
        }
        return {method: handler(method, answer) for method, answer in answers.items()}

    async def importing(self, params: dict[str, Any]) -> AsyncIterator[object]:
        self.asked.append(("media.import", params))
        for step in self.steps:
            yield step
        yield Outcome(self.result)

    async def raw(self, *arguments: object) -> tuple[int, str, str]:
        words = ["media", *map(str, arguments), "--data", str(self.paths.root)]
        code = await trio.to_thread.run_sync(run, words)
        out, err = self._capsys.readouterr()
        if "--json" not in arguments:
            assert max(cell_len(line) for line in (out or " ").splitlines()) <= 80, out
        return code, out, err

    async def says(self, *arguments: object) -> str:
        """What a command that succeeds prints, on one line."""
        code, out, err = await self.raw(*arguments)
        assert (code, err) == (0, ""), err
        return " ".join(out.split())


@pytest.fixture(autouse=True, params=["en", "zh_CN"])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LANGUAGE", request.param)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.delenv("COLUMNS", raising=False)
    time.tzset()
    i18n._catalogue.cache_clear()
    yield request.param
    monkeypatch.undo()
    time.tzset()
    i18n._catalogue.cache_clear()
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files in the output are short, and what is written lies where it goes away."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shell]:
    shell = Shell(tmp_path, capsys)
    async with fake_node(shell.paths.root, [], shell.handlers(), {"media.import": shell.importing}):
        yield shell


# Importing.


async def test_import_tells_what_became_of_everything_and_what_is_still_to_come(
    shell: Shell, language: str
) -> None:
    out = await shell.says("import", "/media/a")
    assert shell.asked == [("media.import", {"path": "/media/a", "in_place": False})]
    for said in (
        GUANGDONG,
        "2026-11-18",
        "/media/a/cuntong-abcdefghij-3",
        "What this volume says of itself is damaged.",
        "It is of another network.",
        "A signature is wrong.",
        "The torrent is damaged.",
        "Not subscribed.",
        "6" * 20,
        "49.0 MB",
        "1.0 MB",
        "abcdefghij",
        "1, 4-5",
        "The disk is full.",
        "/media/a/441900003005.receipt",
        "This is not a receipt.",
    ):
        assert said in out, said
    if language == "en":
        for said in (
            "Volume 2 of 5 from 440000000000, 2026-11-18, set abcdefghij",
            "Catalogue of 000000000000: taken, version 14",
            "Catalogue of 440000000000: version 7 was here",
            "Catalogue of 441900000000: version 2 is older than 3, which is here and stays",
            "Catalogue of 450000000000: not followed here, so left",
            "Catalogue of 441900003000: refused",
            "Receipt 3 of 441900003007: taken, 17 bundles there",
            "8 bundles: 1 refused, 1 in part, 1 not listed, 2 complete, 1 kept for later, 1 was here, 1 not wanted",
            "199 MB read; 1.0 MB of it is damaged.",
            "What 1 bundle still lacks comes by itself",
            "Of set abcdefghij from 440000000000 volumes 1, 4-5 are still to come.",
            "! The disk is full.",
            "Send it back with the medium.",
        ):
            assert said in out, said
        # What asks for attention stands above what went well.
        places = [out.index(f"bundle-{number} ") for number in (7, 2, 1, 4, 3, 5)]
        assert places == sorted(places)


async def test_bundles_of_a_large_disk_are_counted_but_its_problems_all_shown(
    shell: Shell, language: str
) -> None:
    shell.result = ImportResult(
        volumes=[WHOLE] * 30,
        bundles=[
            *(bundle(number, "complete", bytes_taken=1) for number in range(300)),
            *(bundle(number, "refused") for number in range(300, 330)),
        ],
    )
    out = await shell.says("import", "/media/a")
    assert all(f"bundle-{number} " in out for number in range(300, 330))
    assert out.count("bundle-") == 30 + views.MAX_SHOWN
    if language == "en":
        assert "and 280 more" in out
        assert "and 10 more" in out
        assert "330 bundles: 30 refused, 300 complete" in out


async def test_import_from_a_relative_path_in_place_asks_for_an_absolute_one(
    shell: Shell, tmp_path: Path
) -> None:
    await shell.says("import", "stick", "--in-place")
    assert shell.asked == [("media.import", {"path": str(tmp_path / "stick"), "in_place": True})]


async def test_import_of_what_is_here_already_is_no_error(shell: Shell) -> None:
    for result in (
        ImportResult(volumes=[WHOLE], bundles=[bundle(1, "here")]),
        ImportResult(volumes=[WHOLE], catalogues=[ImportedCatalogue(authority=NATION, state="known")]),
        ImportResult(volumes=[WHOLE], catalogues=[ImportedCatalogue(authority=NATION, state="older")]),
        ImportResult(receipts=[TakenReceipt(code=OTHER, number=1)]),
    ):  # fmt: skip
        shell.result = result
        assert (await shell.raw("import", "/media/a"))[0] == 0


FOREIGN = ImportedCatalogue(authority=NATION, state="foreign")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (ImportResult(), "nothing-usable"),
        (ImportResult(volumes=RESULT.volumes[2:]), "nothing-usable"),
        (
            ImportResult(
                volumes=[WHOLE],
                catalogues=[FOREIGN],
                bundles=[bundle(1, "unknown"), bundle(2, "partial", bytes_missing=50_000_000)],
            ),
            "nothing-usable",
        ),
        (ImportResult(receipts=RESULT.receipts[1:]), "nothing-usable"),
        (
            ImportResult(
                volumes=[WHOLE],
                catalogues=[FOREIGN],
                bundles=[bundle(1, "unknown"), bundle(2, "unwanted")],
            ),
            "not-listed",
        ),
        (ImportResult(volumes=[WHOLE], bundles=[bundle(2, "unwanted")]), "not-for-here"),
        (
            ImportResult(volumes=RESULT.volumes, bundles=[bundle(2, "unwanted")]),
            "nothing-usable",
        ),
    ],
)
async def test_medium_of_no_use_ends_with_65_and_says_what_to_do(
    shell: Shell, result: ImportResult, code: str
) -> None:
    shell.result = result
    ended, out, err = await shell.raw("import", "/media/a")
    assert ended == Fault.CONTENT.value
    assert err.endswith(f"(media.{code})\n")
    assert err.count("\n") == 1
    assert all(said.problem.render() in out for said in result.volumes if said.problem is not None)


async def test_what_stays_on_the_medium_is_ejected_before_it_goes(shell: Shell) -> None:
    assert "cuntong media eject /media/a" in await shell.says("import", "/media/a", "--in-place")
    shell.result = ImportResult(volumes=[WHOLE], bundles=[bundle(1, "here")])
    assert "eject" not in await shell.says("import", "/media/a")


async def test_receipt_is_written_on_this_side_when_the_medium_takes_none(
    shell: Shell, tmp_path: Path, language: str
) -> None:
    shell.result = msgspec.structs.replace(
        RESULT,
        receipt_file="",
        receipt_problem=sentence("media.read-only", "The disc can't be written."),
    )
    out = await shell.says("import", "/media/a")
    assert "The disc can't be written." in out
    assert "cuntong media report" in out
    assert "--receipt" in out
    out = await shell.says("import", "/media/a", "--receipt", "r.txt")
    assert (tmp_path / "r.txt").read_text() == shell.made.text
    assert "r.txt" in out
    if language == "en":
        assert "To make one" not in out


async def test_receipt_for_a_folder_gets_the_name_of_the_place(
    shell: Shell, tmp_path: Path
) -> None:
    await shell.says("import", "/media/a", "--receipt", ".")
    assert (tmp_path / f"{VILLAGE}.receipt").read_text() == shell.made.text


async def test_json_of_an_import_is_one_document(shell: Shell, tmp_path: Path) -> None:
    shell.steps = [ImportStep(phase="looking"), ImportStep(phase="reading", id="x")]
    code, out, err = await shell.raw("import", "/media/a", "--json", "--receipt", ".")
    assert (code, err) == (0, "")
    assert msgspec.convert(json.loads(out), ImportResult) == RESULT
    assert (tmp_path / f"{VILLAGE}.receipt").exists()


async def test_progress_goes_to_the_terminal_alone(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    shown: list[str] = []
    screen = io.StringIO()
    shell.steps = [
        ImportStep(phase="waiting"),
        ImportStep(phase="looking", folder="/media/a/cuntong-abcdefghij-2", number=2, count=5),
        *(
            ImportStep(phase="reading", folder="/media/a/cuntong-abcdefghij-2", number=2, count=5,
                       id=f"x/{number}", title=f"{number}", bytes_done=done, bytes_total=40)
            for number in (1, 2) for done in (0, 20, 40)
        ),
        ImportStep(phase="checking", folder="/media/a/elsewhere", id="x/3", bytes_done=7),
    ]  # fmt: skip

    def console(*, stderr: bool = False) -> Any:
        from rich.console import Console

        return Console(file=screen if stderr else None, force_terminal=stderr, width=80)

    def step_texts(step: ImportStep) -> tuple[str, str]:
        texts = original(step)
        shown.append("|".join(texts))
        return texts

    original = views.step_texts
    monkeypatch.setattr(views, "step_texts", step_texts)
    monkeypatch.setattr(output, "console", console)
    code, out, _err = await shell.raw("import", "/media/a")
    assert code == 0
    assert "\x1b" not in out
    assert "\x1b" in screen.getvalue()
    assert len(shown) == len(shell.steps)
    if language == "en":
        assert shown[0] == "waiting for another import to end|"
        assert shown[1] == "Volume 2 of 5: looking for volumes|"
        assert shown[2] == "Volume 2 of 5: reading|1"
        assert shown[-1] == "/media/a/elsewhere: checking what was written|x/3"


async def test_import_that_the_daemon_ends_says_why_in_one_line(shell: Shell) -> None:
    async def ends(_params: dict[str, Any]) -> AsyncIterator[object]:
        await trio.lowlevel.checkpoint()
        yield ImportStep(phase="reading")
        raise MediaError("media.gone", "The medium went.", fault=Fault.SYSTEM)

    folder = shell.paths.root / "second"
    folder.mkdir()
    async with fake_node(folder, [], {}, {"media.import": ends}):
        words = ["media", "import", "/media/a", "--data", str(folder)]
        assert await trio.to_thread.run_sync(run, words) == Fault.SYSTEM.value
    assert shell._capsys.readouterr().err == "cuntong: The medium went. (media.gone)\n"


async def test_person_who_stops_waiting_is_told_that_the_import_goes_on(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlClient, "follow", stop)
    code, out, err = await shell.raw("import", "/media/a")
    assert (code, out) == (130, "")
    assert "cuntong media status" in err
    assert "cuntong media eject /media/a" in err


# Receipts.


async def test_report_writes_the_receipt_and_says_where_it_goes(
    shell: Shell, tmp_path: Path
) -> None:
    out = await shell.says("report")
    assert (tmp_path / f"{VILLAGE}.receipt").read_text() == shell.made.text
    assert f"cuntong media receipt {VILLAGE}.receipt" in out
    assert "█" not in out
    await shell.says("report", "--output", "named")
    assert decode_receipt((tmp_path / "named").read_text())[0] == receipt()


@pytest.mark.parametrize(("name", "begin"), [("r.svg", b"<?xml"), ("r.PNG", b"\x89PNG")])
async def test_report_is_saved_as_a_picture_for_a_telephone(
    shell: Shell, tmp_path: Path, name: str, begin: bytes
) -> None:
    out = await shell.says("report", "--qr", name)
    assert (tmp_path / name).read_bytes().startswith(begin)
    assert name in out


async def test_code_that_holds_a_part_tells_that_the_file_has_more(
    shell: Shell, tmp_path: Path, language: str
) -> None:
    small = receipt_qr_text(sign_receipt(receipt(2, is_all=False), KEY, ()))
    shell.made = made(receipt(2000), qr=small)
    out = await shell.says("report", "--qr", "r.svg")
    if language == "en":
        assert "Only 2 bundles of this place fit into the code; the file has all." in out


@pytest.mark.parametrize(
    ("is_installed", "code", "fault"),
    [(True, "media.no-qr", Fault.USAGE), (False, "media.qr-not-installed", Fault.CONFIG)],
)
async def test_picture_that_cannot_be_made_leaves_the_file(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_installed: bool,
    code: str,
    fault: Fault,
) -> None:
    if is_installed:
        shell.made = made(receipt(), qr="")
    else:
        monkeypatch.setattr(media_commands, "make_qr", lambda _text: None)
    ended, _out, err = await shell.raw("report", "--qr", "r.svg")
    assert ended == fault.value
    assert err.endswith(f"({code})\n")
    assert (tmp_path / f"{VILLAGE}.receipt").exists()
    assert not (tmp_path / "r.svg").exists()


async def test_other_kinds_of_pictures_are_refused_before_anything_is_written(
    shell: Shell, tmp_path: Path
) -> None:
    code, _out, err = await shell.raw("report", "--qr", "r.jpg")
    assert code == Fault.USAGE.value
    assert err.endswith("(usage.bad-command-line)\n")
    assert shell.asked == []
    assert not (tmp_path / f"{VILLAGE}.receipt").exists()


@pytest.mark.parametrize(("width", "is_shown"), [(200, True), (80, False)])
def test_code_is_shown_where_the_window_is_wide_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, is_shown: bool
) -> None:
    class Window:
        def __init__(self) -> None:
            self.width = width

    monkeypatch.setattr(media_commands, "console", Window)
    media_commands._show_qr(made(receipt(40)))
    out = " ".join(capsys.readouterr().out.split())
    assert ("▀" in out) == is_shown
    assert ("--qr receipt.svg" in out) != is_shown


def test_code_is_silently_left_out_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    media_commands._show_qr(made(receipt(), qr=""))
    monkeypatch.setitem(__import__("sys").modules, "segno", None)
    assert qr.make_qr("X") is None
    media_commands._show_qr(made(receipt()))
    assert capsys.readouterr().out == ""


async def test_receipts_that_came_back_tell_what_their_places_have(
    shell: Shell, tmp_path: Path, language: str
) -> None:
    first, second = tmp_path / "a.receipt", tmp_path / "b.receipt"
    first.write_text(text_of(receipt()))
    second.write_bytes(
        ("\ufeff" + text_of(receipt(7, number=13, is_all=False)).replace("\n", "\r\n")).encode()
    )
    out = await shell.says("receipt", first, second)
    sent = [decode_receipt(params["text"])[0].number for _method, params in shell.asked]
    assert sent == [12, 13]
    for said in (
        VILLAGE,
        "≥ 7",
        f"{GUANGDONG}/202611/ordered",
        "12.0 GB",
        "678 GB",
        "store.disk-full",
        "320 GB",
    ):
        assert said in out, said  # fmt: skip
    if language == "en":
        assert "Taken: receipt 12 of 441900003005" in out
        assert "Counted 2026-08-20 to 2026-11-18" in out
        assert "Came 12.0 GB by satellite 345 MB over the network 678 GB by medium" in out
        assert "Passed on 9.0 MB" in out


async def test_one_bad_receipt_among_others_costs_only_itself(shell: Shell, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.receipt" for number in range(4)]
    files[0].write_bytes(b"\xff\xfe no receipt \0")
    files[1].write_text(text_of(receipt()))
    files[2].write_text(text_of(receipt()).replace("A", "B"))
    code, out, err = await shell.raw("receipt", *files)
    assert code == Fault.SYSTEM.value
    assert [line.rsplit("(", 1)[1] for line in err.splitlines()] == [
        "media.bad-receipt)",
        "media.bad-receipt)",
        "system.enoent)",
    ]
    assert all(str(files[number]) in line for number, line in zip((0, 2, 3), err.splitlines(), strict=True))  # fmt: skip
    assert VILLAGE in out
    assert len(shell.asked) == 1


@pytest.mark.parametrize("is_raised", [True, False])
async def test_receipt_that_the_daemon_refuses_is_not_shown_as_taken(
    shell: Shell, tmp_path: Path, is_raised: bool
) -> None:
    why = ("media.unknown-key", "No members list names its key.")
    shell.taken = (
        MediaError(*why, fault=Fault.REFUSED)
        if is_raised
        else TakenReceipt(code=VILLAGE, problem=sentence(*why))
    )
    file = tmp_path / "a.receipt"
    file.write_text(text_of(receipt()))
    code, out, err = await shell.raw("receipt", file)
    assert code == (Fault.REFUSED.value if is_raised else Fault.CONTENT.value)
    assert out == ""
    assert err == f"cuntong: {file}: {why[1]} ({why[0]})\n" or "zh" in err or str(file) in err


async def test_scanner_types_several_codes_one_after_the_other(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [receipt_qr_text(sign_receipt(receipt(2, number=n), KEY, ())) for n in (5, 6)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(code or "" for code in codes).lower()))
    await shell.says("receipt", "-")
    assert [decode_receipt(params["text"])[0].number for _, params in shell.asked] == [5, 6]


async def test_scanner_at_a_terminal_types_the_longest_code_in_one_line(shell: Shell) -> None:
    """A terminal cuts lines off at 4,095 characters unless somebody reads them one by one."""
    longest = receipt_qr_text(sign_receipt(receipt(252), KEY, ()))
    assert longest is not None
    assert len(longest) > 4095
    assert await trio.to_thread.run_sync(scan, shell.paths.root, longest) == 0
    assert [params["text"].strip() for _method, params in shell.asked] == [longest]


def scan(data: Path, text: str) -> int:
    """Run the command at a terminal, type a line and an empty one when it asks, and return the exit code."""
    ours, theirs = os.openpty()
    words = ["-m", "cuntong_tools", "media", "receipt", "-", "--data", str(data)]
    with subprocess.Popen(
        [sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while b"> " not in said:
            said += os.read(ours, 4096)
        typed = f"{text}\n\n".encode()
        for start in range(0, len(typed), 256):
            os.write(ours, typed[start : start + 256])
            os.read(ours, 65_536)  # Its echo; a full terminal would stop both sides.
        with contextlib.suppress(OSError):  # What a terminal says when nobody has it any more.
            while os.read(ours, 65_536):
                pass
        os.close(ours)
        return process.wait()


async def test_what_others_wrote_never_steers_the_terminal(shell: Shell, tmp_path: Path) -> None:
    evil = "\x1b[2J\u202e\x07x"
    shell.result = ImportResult(
        volumes=[ImportedVolume(folder=f"/media/{evil}")],
        bundles=[ImportedBundle(id=evil, title=evil, infohash="0" * 64, state="here")],
        receipts=[TakenReceipt(file=evil, problem=sentence("media.bad-receipt", "No."))],
    )
    shell.status = MediaStatus(
        running=ImportStep(phase="reading", folder=evil, id=evil),
        in_place=[InPlace(id=evil, title=evil, folder=evil)],
        places=[PlaceKnown(code=VILLAGE, how="link", orders=[evil])],
    )
    file = tmp_path / "a.receipt"
    file.write_text(text_of(receipt(orders=(evil,))))
    assert (await shell.raw("receipt", str(file)))[0] == Fault.CONTENT.value
    for words in (["import", "/media/a"], ["status"], ["status", VILLAGE]):
        out = await shell.says(*words)
        assert "x" in out
        assert not set(out) & set("\x1b\x07\u202e")


async def test_nothing_typed_is_no_receipt(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("  \n"))
    code, _out, err = await shell.raw("receipt", "-")
    assert code == Fault.CONTENT.value
    assert err.endswith("(media.bad-receipt)\n")


async def test_receipt_of_a_place_with_many_bundles_passes_the_local_socket(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "a.receipt"
    file.write_text(text_of(receipt(20_000)))
    assert "20000" in await shell.says("receipt", file)


def test_without_a_daemon_nothing_is_asked_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(text_of(receipt()))
    code = run(["media", "receipt", *map(str, files), "--data", str(tmp_path)])
    err = capsys.readouterr().err
    assert code == Fault.TRANSPORT.value
    assert err.count("(control.no-daemon)") == 1


# Status and eject.


async def test_status_tells_what_runs_what_is_missing_and_what_others_have(
    shell: Shell, language: str
) -> None:
    out = await shell.says("status")
    for said in (
        "21.0 MB",
        "abcdefghij",
        "2-3",
        "1, 4-5",
        "4.2 GB",
        "/media",
        VILLAGE,
        OTHER,
        "312",
        "≥ 17",
        "320 GB",
    ):
        assert said in out, said  # fmt: skip
    if language == "en":
        for said in (
            f"Import Volume 2 of 5: reading {LONG[:10]}",
            "21.0 MB of 50.0 MB",
            "By itself from /media, /run/media",
            "2 bundles that aren't listed for this place yet",
            "receipt 12",
            "441900003008 nothing -",
        ):
            assert said in out, said


async def test_status_of_a_node_that_never_got_anything_by_post(
    shell: Shell, language: str
) -> None:
    shell.status = MediaStatus()
    out = await shell.says("status")
    assert "[media] watch" in out
    if language == "en":
        assert "none is running" in out


async def test_status_of_one_place_tells_all_of_it(shell: Shell, language: str) -> None:
    out = await shell.says("status", VILLAGE)
    for said in ("312", "202611/9", "clock.wrong", "678 GB", "180 GB"):
        assert said in out, said
    assert "202611/10" not in out
    if language == "en":
        assert "and 2 more" in out
    document = json.loads((await shell.raw("status", VILLAGE, "--json"))[1])
    assert document["statistics"]["by_medium"] == 678_000_000_000
    assert json.loads((await shell.raw("status", "--json"))[1])["offers"] == 2


@pytest.mark.parametrize("code", ["441900003008", "532524100201"])
async def test_place_that_never_told_anything_is_asked_for_a_receipt(
    shell: Shell, code: str
) -> None:
    ended, _out, err = await shell.raw("status", code)
    assert ended == Fault.USAGE.value
    assert "cuntong media report" in err
    assert err.endswith("(media.unknown-place)\n")


async def test_hundreds_of_places_are_counted(shell: Shell, language: str) -> None:
    place = STATUS.places[1]
    shell.status = MediaStatus(places=[place] * 400)
    out = await shell.says("status")
    assert out.count(OTHER) == views.MAX_PLACES
    if language == "en":
        assert "and 360 places more" in out


async def test_eject_says_that_the_medium_can_be_unmounted(
    shell: Shell, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    out = await shell.says("eject", "gone-already")
    assert shell.asked == [("media.eject", {"path": "/gone-already"})]
    if language == "en":
        assert "2 uses of" in out
    shell.stopped = 0
    out = await shell.says("eject", "/media/a")
    if language == "en":
        assert "Nothing here uses /media/a." in out


# Texts.


def test_numbers_of_volumes_are_told_shortly() -> None:
    assert views.ranges([]) == "-"
    assert views.ranges([7]) == "7"
    assert views.ranges([9, 1, 2, 3, 5, 3]) == "1-3, 5, 9"
    assert len(views.ranges(range(1, 9999, 2))) < 200


def test_every_state_and_phase_has_a_name() -> None:
    kinds = {field.name: field.type for field in msgspec.structs.fields(ImportedBundle)}
    assert set(views.BUNDLE_STATES) == set(kinds["state"].__args__)
    kinds = {field.name: field.type for field in msgspec.structs.fields(ImportStep)}
    assert set(views.PHASE_NAMES) == set(kinds["phase"].__args__)


def test_all_texts_of_the_commands_fit_and_are_there() -> None:
    group = media_commands.media
    for name in ["", *group.list_commands(click.Context(group))]:
        context = click.Context(group, info_name="cuntong media")
        command = group.get_command(context, name) if name else group
        assert command is not None
        inner = click.Context(command, info_name=f"cuntong media {name}".rstrip())
        inner.formatter_class = output.WideHelpFormatter
        page = command.get_help(inner)
        assert max(cell_len(line) for line in page.splitlines()) <= 80, page
        assert command.help
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)
