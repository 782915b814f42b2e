"""The commands at an authority's keyboard, as scripts and people call them."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.control.server import ControlServer
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.services import running
from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_tools.authority import common
from cuntong_tools.main import run
from cuntong_tools.publish import publish as publish_module
from cuntong_tools.publish.publish import propose_cuts
from tests.support.authorities import (
    NOW,
    PASSPHRASE,
    Killed,
    cheap_passphrases,
    files_below,
    killed_after,
    make_listing,
)

METADATA = """
title = "粤剧"
slug = "opera"
date = 2026-11-01
category = "opera/film"
[licence]
kind = "restricted"
scope = ["4419"]
until = 2030-01-01
"""


class Keyboard:
    """Runs commands in a folder with sticks; counts what was asked through `--passphrase-fd`."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        for place in ("n", "p", "c"):
            for number in (1, 2, 3):
                (folder / f"{place}{number}").mkdir()

    def paths(self, place: str) -> DataPaths:
        return DataPaths(self.folder / f"data-{place}")

    def repository(self, place: str) -> AuthorityRepository:
        return AuthorityRepository(self.paths(place).authority)

    def sticks(self, place: str, *numbers: int) -> list[str]:
        return [
            word
            for number in numbers or (1, 2, 3)
            for word in ("--keys", str(self.folder / f"{place}{number}"))
        ]

    def __call__(
        self, place: str, *words: str, lines: int | list[str] = 12, expect: int = 0
    ) -> tuple[str, str]:
        """Run a command; returns what it wrote to stdout and stderr."""
        arguments = [*words, "--data", str(self.paths(place).root)]
        descriptor = None
        if "--keys" in words:
            typed = [PASSPHRASE] * lines if isinstance(lines, int) else lines
            descriptor, end = os.pipe()
            os.write(end, "".join(line + "\n" for line in typed).encode())
            os.close(end)
            arguments += ["--passphrase-fd", str(descriptor)]
        self._capsys.readouterr()
        try:
            code = run(arguments)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        out, err = self._capsys.readouterr()
        assert code == expect, out + err
        return out, err

    def refused(self, place: str, *words: str, lines: int | list[str] = 12, code: str) -> str:
        """Run what must fail: one line on stderr, the code at its end, nothing changed anywhere."""
        before = files_below(self.folder)
        arguments = [*words, "--data", str(self.paths(place).root)]
        descriptor = None
        if "--keys" in words:
            typed = [PASSPHRASE] * lines if isinstance(lines, int) else lines
            descriptor, end = os.pipe()
            os.write(end, "".join(line + "\n" for line in typed).encode())
            os.close(end)
            arguments += ["--passphrase-fd", str(descriptor)]
        self._capsys.readouterr()
        try:
            assert run(arguments) != 0
        finally:
            if descriptor is not None:
                os.close(descriptor)
        _out, err = self._capsys.readouterr()
        assert err.count("\n") == 1, err
        assert err.rstrip().endswith(f"({code})"), err
        after = files_below(self.folder)
        assert (
            after.keys() - {".lock"} == before.keys() - {".lock"}
            or {name for name in after.keys() ^ before.keys() if not name.endswith("/.lock")}
            == set()
        )
        assert all(after[name] == data for name, data in before.items())
        return err


@pytest.fixture
def keyboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Keyboard:
    cheap_passphrases(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "now", lambda: NOW)
    for module in ("cuntong_tools.authority.commands", "cuntong_tools.authority.status"):
        monkeypatch.setattr(f"{module}.now", lambda: NOW)
    monkeypatch.setattr("cuntong_tools.publish.commands.now", lambda: NOW)
    return Keyboard(tmp_path, capsys)


@pytest.fixture
def network(keyboard: Keyboard) -> Keyboard:
    """Nation and province, endorsed."""
    keyboard(
        "n", "authority", "init", "000000000000", "--name", "国家", *keyboard.sticks("n"), "--yes"
    )
    out, _ = keyboard(
        "p", "authority", "init", "44", "--name", "广东", *keyboard.sticks("p"), "--yes"
    )
    keyboard(
        "n",
        *("authority", "endorse", "440000000000.authority-request", *keyboard.sticks("n", 1)),
        *("--yes", "--fingerprint", _fingerprint(out)),
    )
    keyboard("p", "authority", "install", "440000000000.authority-response", "--yes")
    return keyboard


def _fingerprint(out: str) -> str:
    match = re.search(r"(?:[A-Z2-7]{5}-){4}[A-Z2-7]{5}", out)
    assert match
    return match[0]


def _content(folder: Path) -> Path:
    (folder / "opera" / "文字").mkdir(parents=True, exist_ok=True)
    (folder / "opera.toml").write_text(METADATA)
    (folder / "opera" / "film.bin").write_bytes(bytes(range(256)) * 1000)
    for number in range(20):
        (folder / "opera" / "文字" / f"{number}.txt").write_text(f"第{number}场 " * 50)
    return folder / "opera"


# cuntong authority


def test_init_writes_keys_and_a_request_and_shows_the_fingerprint(keyboard: Keyboard) -> None:
    out, _ = keyboard(
        "c", "authority", "init", "4419", "--name", "东莞", *keyboard.sticks("c"), "--yes"
    )
    assert "441900000000" in out
    assert "2 of 3" in out
    assert (keyboard.folder / "441900000000.authority-request").exists()
    assert sorted(path.name for path in (keyboard.folder / "c1").iterdir()) == [
        "ca.pem",
        "enrolment.pem",
        "reviewer-1.pem",
        "root-1.pem",
        "targets.pem",
    ]
    status, _ = keyboard("c", "authority", "status", "--json")
    facts = json.loads(status)
    assert facts["fingerprint"] == _fingerprint(out)
    assert any("Not endorsed yet" in it for it in facts["reminders"])


def test_init_asks_one_passphrase_for_each_stick(keyboard: Keyboard) -> None:
    words = ("authority", "init", "4419", "--name", "东莞", *keyboard.sticks("c"), "--yes")
    keyboard.refused("c", *words, lines=2, code="keys.no-more-passphrases")
    keyboard.refused("c", *words, lines=["short"] * 3, code="keys.short-passphrase")
    keyboard("c", *words, lines=3)


def test_init_with_too_few_sticks_or_a_bad_code_is_refused(keyboard: Keyboard) -> None:
    words = ("authority", "init", "4419", "--name", "东莞", "--yes")
    keyboard.refused("c", *words, *keyboard.sticks("c", 1), code="authority.too-few-sticks")
    keyboard.refused("c", *words, code="authority.too-few-sticks")


def test_second_init_in_one_data_directory_is_refused(network: Keyboard) -> None:
    words = ("authority", "init", "44", "--name", "x", *network.sticks("c"), "--yes")
    network.refused("p", *words, code="authority.exists")


@pytest.mark.parametrize("typed", ["AAAAAA", "", "A"])
def test_endorsement_needs_the_fingerprint_from_the_paper_form(
    network: Keyboard, typed: str
) -> None:
    words = ("authority", "endorse", "440000000000.authority-request", *network.sticks("n", 1))
    code = "endorse.wrong-fingerprint"
    network.refused("n", *words, "--yes", "--fingerprint", typed, code=code)
    network.refused("n", *words, "--yes", code=code)


def test_endorsing_with_wrong_passphrase_wrong_stick_or_missing_stick_changes_nothing(
    network: Keyboard,
) -> None:
    request = read = "440000000000.authority-request"
    status, _ = network("p", "authority", "status")
    words = ("authority", "endorse", request, "--yes", "--fingerprint", _fingerprint(status))
    assert read
    network.refused("n", *words, *network.sticks("n", 2), code="keys.not-on-stick")
    network.refused("n", *words, "--keys", "nothing", code="keys.no-stick")
    network.refused(
        "n", *words, *network.sticks("n", 1), lines=["wrong one"], code="keys.wrong-passphrase"
    )
    network.refused("n", *words, *network.sticks("n", 1), lines=0, code="keys.no-more-passphrases")


def test_county_is_not_endorsed_by_its_neighbour(network: Keyboard) -> None:
    out, _ = network(
        "c", "authority", "init", "45", "--name", "广西", *network.sticks("c"), "--yes"
    )
    words = ("authority", "endorse", "450000000000.authority-request", *network.sticks("p", 1))
    network.refused(
        "p", *words, "--yes", "--fingerprint", _fingerprint(out), code="endorse.not-below"
    )


def test_expired_endorsement_is_said_to_those_who_publish(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = NOW.replace(year=2027, month=12, day=1)
    folder = _content(network.folder)
    repository = network.repository("p")
    monkeypatch.setattr(
        "cuntong_tools.publish.commands.now", lambda: NOW.replace(year=2028, month=6)
    )
    monkeypatch.setattr("cuntong_tools.authority.status.now", lambda: later)
    words = ("publish", str(folder), *network.sticks("p", 1), "--yes")
    network.refused("p", *words, code="authority.endorsement-expired")
    repository.resign_timestamp(later)
    out, _ = network("p", "authority", "status")
    assert "2028-02-21" not in [line for line in out.splitlines() if line.startswith("!")]


def test_status_reminds_from_sixty_days_before(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reminders(year: int, month: int, day: int) -> list[str]:
        moment = NOW.replace(year=year, month=month, day=day)
        monkeypatch.setattr("cuntong_tools.authority.status.now", lambda: moment)
        out, _ = network("p", "authority", "status", "--json")
        found: list[str] = json.loads(out)["reminders"]
        return [it for it in found if "daemon" not in it]

    assert reminders(2027, 12, 22) == []
    assert "2028-02-21" in reminders(2027, 12, 24)[0]
    assert any("authority renew" in it for it in reminders(2029, 10, 1))


def test_status_tells_when_the_daemon_has_stopped_signing(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = NOW.replace(day=27)
    monkeypatch.setattr("cuntong_tools.authority.status.now", lambda: moment)
    out, _ = network("p", "authority", "status")
    assert "! The timestamp was signed last" in out
    out, _ = network("n", "authority", "status")
    assert "440000000000" in out


@pytest.mark.parametrize("key", ["online", "targets", "root-2", "reviewer-1", "enrolment"])
def test_rotate_replaces_a_key(network: Keyboard, key: str) -> None:
    old = network.repository("p").load()
    words = ("authority", "rotate", key, *network.sticks("p"), "--yes")
    words += ("--new", str(network.folder / "p3")) if key == "root-2" else ()
    (network.folder / "p3" / "root-3.pem").rename(network.folder / "p2" / "kept.pem")
    network("p", *words)
    new = network.repository("p").load()
    assert new.timestamp.signed.version == old.timestamp.signed.version + 1
    if key != "online":
        assert new.settings.keys[key] != old.settings.keys[key]
    network("p", "publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")


def test_rotate_refuses_what_would_put_a_quorum_on_one_stick(network: Keyboard) -> None:
    words = ("authority", "rotate", "root-2", *network.sticks("p"), "--yes")
    network.refused("p", *words, "--new", str(network.folder / "p3"), code="rotate.same-stick")


def test_rotate_without_quorum_or_with_wrong_passphrase_leaves_no_key_behind(
    network: Keyboard,
) -> None:
    words = ("authority", "rotate", "targets", "--yes")
    network.refused("p", *words, *network.sticks("p", 1), code="keys.no-quorum")
    network.refused(
        "p", *words, *network.sticks("p"), lines=["wrong one"], code="keys.wrong-passphrase"
    )
    network.refused("p", *words, *network.sticks("p"), lines=2, code="keys.no-more-passphrases")
    network.refused(
        "p", "authority", "rotate", "nose", "--yes", *network.sticks("p"), code="rotate.unknown-key"
    )


def test_renew_tells_what_is_left(network: Keyboard) -> None:
    out, _ = network("p", "authority", "renew", *network.sticks("p", 2, 3), "--yes")
    assert "targets" in out.split("Not renewed", 1)[1]
    out, _ = network("p", "authority", "renew", *network.sticks("p"), "--yes")
    assert "Not renewed" not in out


def test_no_authority_here_is_said(keyboard: Keyboard) -> None:
    keyboard.refused("c", "authority", "status", code="authority.none")
    keyboard.refused("c", "withdraw", "44/x/y", "--reason", "r", code="authority.none")


def test_answering_no_signs_nothing(network: Keyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    words = ("publish", str(_content(network.folder)), *network.sticks("p", 1))
    before = files_below(network.folder)
    network("p", *words, expect=130)
    after = {
        name: data for name, data in files_below(network.folder).items() if ".lock" not in name
    }
    assert after == before


# cuntong publish, revise, withdraw


def test_publish_puts_payload_torrent_and_listing_there(network: Keyboard) -> None:
    folder = _content(network.folder)
    out, _ = network("p", "publish", str(folder), *network.sticks("p", 1), "--yes", lines=1)
    for fact in (
        "粤剧",
        "opera/film",
        "restricted to 4419, 2030-01-01",
        "21 files",
        "isn't running",
    ):
        assert fact in out
    authority = network.repository("p").load()
    target = authority.listing("440000000000/202611/opera")
    assert target is not None
    infohash = target.custom["infohash"]
    incoming = network.paths("p").incoming
    torrent = decode_torrent((incoming / f"{infohash}.torrent").read_bytes())
    assert torrent.infohash.hex() == infohash
    for file in torrent.files:
        assert (incoming / infohash / "opera" / file.path).stat().st_size == file.length
    assert not (incoming / ".building").exists()


def test_publish_finds_or_asks_for_metadata(network: Keyboard) -> None:
    folder = _content(network.folder)
    toml = network.folder / "opera.toml"
    words = ("publish", str(folder), *network.sticks("p", 1), "--yes")
    toml.rename(network.folder / "metadata.toml")
    (network.folder / "metadata.toml").write_text("title = 3")
    network.refused("p", *words, code="metadata.missing-key")
    (network.folder / "metadata.toml").write_bytes(b"\xff")
    network.refused("p", *words, code="publish.bad-metadata")
    (network.folder / "metadata.toml").unlink()
    network.refused("p", *words, code="publish.no-metadata")
    (network.folder / "m").write_text(METADATA)
    network("p", "publish", str(folder), "m", *network.sticks("p", 1), "--yes")


def test_publishing_twice_says_how_to_revise(network: Keyboard) -> None:
    words = ("publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")
    network("p", *words)
    assert "cuntong revise 440000000000/202611/opera" in network.refused(
        "p", *words, code="publish.exists"
    )


def test_wrong_stick_is_said_before_anything_is_built(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_args: Any, **_options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(publish_module, "build_bundle", build)
    words = ("publish", str(_content(network.folder)), "--yes")
    network.refused("p", *words, *network.sticks("p", 2), code="keys.not-on-stick")


def test_wrong_passphrase_after_the_build_leaves_nothing(network: Keyboard) -> None:
    words = ("publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")
    before = files_below(network.folder)
    _out, err = network("p", *words, lines=["wrong one"], expect=77)
    assert "keys.wrong-passphrase" in err
    after = {
        name: data for name, data in files_below(network.folder).items() if ".lock" not in name
    }
    assert after == before


def test_revision_shares_packs_and_supersedes(network: Keyboard) -> None:
    folder = _content(network.folder)
    network("p", "publish", str(folder), *network.sticks("p", 1), "--yes")
    bundle = "440000000000/202611/opera"
    words = ("revise", bundle, str(folder), *network.sticks("p", 1), "--yes")
    network.refused("p", *words, code="revise.unchanged")
    (folder / "文字" / "new.txt").write_text("新")
    out, _ = network("p", *words)
    assert "revision 2" in out
    assert "Shared" in out
    target = network.repository("p").load().listing(bundle)
    assert target is not None
    assert target.custom["rev"] == 2
    # Nobody knows the metadata file any more: what the last revision said holds.
    (network.folder / "opera.toml").unlink()
    (folder / "文字" / "newer.txt").write_text("更新")
    out, _ = network("p", *words)
    assert "粤剧" in out
    network.refused("p", "revise", "440000000000/202611/x", *words[2:], code="revise.unknown")


def test_revising_what_is_not_on_this_computer_is_said(network: Keyboard) -> None:
    folder = _content(network.folder)
    network("p", "publish", str(folder), *network.sticks("p", 1), "--yes")
    for path in network.paths("p").incoming.glob("*.torrent"):
        path.unlink()
    words = ("revise", "440000000000/202611/opera", str(folder), *network.sticks("p", 1), "--yes")
    network.refused("p", *words, code="revise.no-payload")


def test_two_publications_at_once_are_refused(network: Keyboard) -> None:
    words = ("publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")
    paths = network.paths("p")
    repository = network.repository("p")
    with publish_module.Publication(paths, repository, repository.load()):
        network.refused("p", *words, code="publish.busy")
    network("p", *words)


def test_incoming_that_can_not_be_written_is_said(network: Keyboard) -> None:
    network.paths("p").incoming.write_text("in the way")
    words = ("publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")
    network.refused("p", *words, code="publish.cannot-write")


def test_withdraw_needs_one_key_and_says_what_it_does(network: Keyboard) -> None:
    network("p", "publish", str(_content(network.folder)), *network.sticks("p", 1), "--yes")
    bundle = "440000000000/202611/opera"
    words = ("withdraw", bundle, "--reason", "版权到期", "--yes")
    network.refused("p", *words, *network.sticks("p", 3), code="keys.not-on-stick")
    out, _ = network("n", *words, *network.sticks("n", 2))
    assert "版权到期" in out
    assert network.repository("n").load().is_withdrawn(bundle)
    network.refused("n", *words, *network.sticks("n", 2), code="publish.withdrawn")
    network.refused(
        "p",
        "withdraw",
        "000000000000/202611/x",
        *words[2:],
        *network.sticks("p", 1),
        code="publish.out-of-scope",
    )


def test_kill_while_listing_leaves_nothing_listed_or_everything_there(network: Keyboard) -> None:
    folder = _content(network.folder)
    paths, repository = network.paths("p"), network.repository("p")
    current = repository.load()
    from cuntong_protocol.bundle.descriptor import parse_bundle_id
    from cuntong_tools.secrets import key_ring

    read, end = os.pipe()
    os.write(end, f"{PASSPHRASE}\n".encode())
    signer = key_ring((network.folder / "p1",), read).signer(
        current.settings.keys["targets"], "targets"
    )
    os.close(read)
    os.close(end)
    said = publish_module.read_metadata(network.folder / "opera.toml", folder, current.code)
    bundle = parse_bundle_id("440000000000/202611/opera")
    moments, is_listed = 0, False
    while not is_listed:
        publication = publish_module.Publication(paths, repository, repository.load())
        publication.__enter__()
        built = publication.build(folder, said, bundle, None, None)
        try:
            with killed_after(moments, paths.root):
                try:
                    publication.sign(built, [signer], now=NOW)
                finally:
                    publication.__exit__()
        except Killed:
            moments += 1
        target = repository.load().listing(str(bundle))
        is_listed = target is not None
        if target is not None:
            name = target.custom["infohash"]
            torrent = decode_torrent((paths.incoming / f"{name}.torrent").read_bytes())
            for file in torrent.files:
                assert (paths.incoming / name / "opera" / file.path).stat().st_size == file.length
            repository.blob(target)
    assert moments > 10


def test_folder_above_twenty_gigabytes_is_cut_in_proposals(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _content(network.folder)
    assert propose_cuts(folder) == []
    big = network.folder / "big"
    for name, size in (("a", 9), ("b", 8), ("c", 7), ("d", 25), ("e", 1)):
        (big / name).mkdir(parents=True)
        with (big / name / "film").open("wb") as file:
            file.truncate(size * 10**9)
    cuts = propose_cuts(big)
    assert [(cut.names, cut.size // 10**9) for cut in cuts] == [
        (("a", "b"), 17),
        (("c",), 7),
        (("d",), 25),
        (("e",), 1),
    ]
    monkeypatch.setattr("cuntong_tools.publish.commands.propose_cuts", lambda _folder: cuts)
    out, _ = network("p", "publish", str(folder), *network.sticks("p", 1), "--yes")
    assert "1. a … b  (17.0 GB)" in out


# cuntong review, promote


async def _with_daemon(network: Keyboard, listings: list[Any], run_commands: Any) -> None:
    """Answer `review.candidates` as the daemon does, with the descriptors among its blobs."""
    paths = network.paths("n")
    paths.blobs.mkdir(exist_ok=True)
    told: list[str] = []
    for listing, data in listings:
        (paths.blobs / listing.sha256).write_bytes(data)

    async def give(_params: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        return [{**msgspec.to_builtins(it), "listed_by": ["44"]} for it, _data in listings]

    async def changed(_params: dict[str, Any]) -> object:
        await trio.lowlevel.checkpoint()
        told.append("changed")
        return None

    handlers = {"review.candidates": give, "authority.changed": changed}
    async with running(ControlServer(paths.socket, handlers)):
        await trio.to_thread.run_sync(lambda: run_commands(told))


async def test_two_reviewers_promote_what_the_daemon_has_verified(network: Keyboard) -> None:
    opera = make_listing("441900000000/202611/opera")
    poetry = make_listing("441900000000/202611/poetry")

    def commands(told: list[str]) -> None:
        out, _ = network("n", "review")
        assert "441900000000/202611/opera" in out
        assert "戏曲" in out
        out, _ = network("n", "review", opera[0].id)
        assert opera[0].infohash in out
        out, _ = network("n", "promote", opera[0].id, *network.sticks("n", 1), "--yes")
        assert "1 of 2" in out
        out, _ = network("n", "review")
        assert f"! {opera[0].id}" in out
        out, _ = network("n", "authority", "status")
        assert "waits for another reviewer: 1 signature" in out
        network.refused(
            "n", "promote", "--yes", *network.sticks("n", 1), code="promote.signed-already"
        )
        network.refused(
            "n",
            "promote",
            poetry[0].id,
            "--yes",
            *network.sticks("n", 2),
            code="promote.other-pending",
        )
        network.refused(
            "n",
            "promote",
            "441900000000/202611/x",
            "--yes",
            *network.sticks("n", 2),
            code="promote.unknown",
        )
        network.refused("n", "promote", "--yes", *network.sticks("n", 3), code="keys.not-on-stick")
        assert not told
        out, _ = network("n", "promote", *network.sticks("n", 2), "--yes")
        assert "Promoted: 441900000000/202611/opera" in out
        assert told == ["changed"]
        network.refused(
            "n", "promote", opera[0].id, "--yes", *network.sticks("n", 2), code="promote.already"
        )

    await _with_daemon(network, [opera, poetry], commands)
    assert set(network.repository("n").load().promoted()) == {opera[0].id}


async def test_second_reviewer_needs_no_daemon_and_a_promotion_can_be_dropped(
    network: Keyboard,
) -> None:
    opera = make_listing("441900000000/202611/opera")

    def first(_told: list[str]) -> None:
        network("n", "promote", opera[0].id, *network.sticks("n", 1), "--yes")

    await _with_daemon(network, [opera], first)
    for path in network.paths("n").blobs.iterdir():
        path.unlink()
    out, _ = network("n", "review", opera[0].id)
    assert "戏曲" in out
    network("n", "promote", "--drop", "--yes")
    network.refused(
        "n", "promote", "--yes", *network.sticks("n", 2), code="promote.nothing-pending"
    )
    network.refused("n", "review", opera[0].id, code="control.no-daemon")
    out, _ = network("n", "review")
    assert "Nothing waits" in out


async def test_descriptor_that_says_something_else_is_not_promoted(network: Keyboard) -> None:
    listing, data = make_listing("441900000000/202611/opera")
    liar = msgspec.structs.replace(listing, infohash="ab" * 32)

    def commands(_told: list[str]) -> None:
        words = ("promote", listing.id, "--yes", *network.sticks("n", 1))
        network.refused("n", *words, code="promote.bad-descriptor")

    await _with_daemon(network, [(liar, data)], commands)
    await _with_daemon(network, [(listing, data[:-1])], commands)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_around_the_decision_keeps_what_belongs_together(
    network: Keyboard, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from cuntong_daemon.authority.journal import Journal

    name = "_stage" if moment == "before" else "_apply"
    original = getattr(Journal, name)
    hits: list[int] = []

    def interrupt(self: Journal, *arguments: Any) -> None:
        if not hits:
            hits.append(1)
            raise KeyboardInterrupt
        original(self, *arguments)

    monkeypatch.setattr(Journal, name, interrupt)
    folder = _content(network.folder)
    network("p", "publish", str(folder), *network.sticks("p", 1), "--yes", expect=130)
    listings = network.repository("p").load().listings()
    payloads = [path.name for path in network.paths("p").incoming.glob("*.torrent")]
    assert [f"{it.custom['infohash']}.torrent" for it in listings.values()] == payloads
    assert len(payloads) == (moment == "after")
    hits.clear()
    network("p", "authority", "rotate", "targets", *network.sticks("p"), "--yes", expect=130)
    keys = [path.name for path in (network.folder / "p1").glob("targets*.pem")]
    assert len(keys) == 1 + (moment == "after")
    hits.clear()
    words = ("authority", "init", "45", "--name", "x", *network.sticks("c"), "--yes")
    network("c", *words, expect=130)
    assert (network.folder / "c1" / "ca.pem").exists() == (moment == "after")
    assert network.repository("c").exists() == (moment == "after")
    network(
        "p",
        "publish",
        str(folder),
        *network.sticks("p"),
        "--yes",
        expect=0 if moment == "before" else 77,
    )
