"""What a command says to wrong passphrases, sticks, places and directories: one sentence, and nothing changed."""

from __future__ import annotations

import functools
import random
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cuntong_protocol.errors import Fault
from cuntong_tools.demo.network import PASSPHRASE, Place
from tests.support.bad_world import (
    BUNDLE,
    CENTRE,
    CHINESE,
    IS_FULL,
    World,
    assert_no_traceback,
    assert_same,
    fake_time,
    files_below,
    keys_of,
    library,
    make_content,
    running_world,
    said,
    spawn_tool,
    tool,
    wait_until,
)

RIGHT = f"{PASSPHRASE}\n" * 9
WRONG = "not the passphrase\n" * 9
PROVINCE = "440000000000"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For refusals that leave everything as it was."""
    with running_world(tmp_path_factory.mktemp("commands")) as world:
        yield world


@pytest.fixture
def untouched(shared: World) -> Iterator[World]:
    """`shared`; at the end the centre's authority and what waits for its daemon are as they were."""
    before = _published(shared.centre)
    yield shared
    assert _published(shared.centre) == before


@pytest.fixture(scope="module")
def province(shared: World) -> Place:
    """An authority below the centre, endorsed for two days."""
    place = shared.network.add(PROVINCE, "广东省", shared.centre, is_authority=True)
    place.paths.root.mkdir(parents=True)
    for stick in place.sticks:
        stick.mkdir(parents=True)
    run = shared.network.run
    request, response = place.folder / "authority.request", place.folder / "authority.response"
    run(place, "authority", "init", PROVINCE, "--name", place.name, *keys_of(place),
        "--output", str(request), "--yes")  # fmt: skip
    until = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    run(shared.centre, "authority", "endorse", str(request), *keys_of(shared.centre), "--until",
        until, "--output", str(response), "--yes",
        *shared.network._fingerprint(request))  # fmt: skip
    run(place, "authority", "install", str(response), "--yes")
    shared.network.enrol(place)
    return place


def _published(place: Place) -> dict[str, bytes]:
    return {
        f"{name}/{path}": data
        for name in ("authority", "incoming")
        for path, data in files_below(place.paths.root / name).items()
        if not path.endswith("lock")
    }


def _revise(world: World, content: Path, *more: str) -> list[str]:
    return ["revise", BUNDLE, str(content), "--yes", *more]


def test_a_wrong_passphrase_signs_nothing(untouched: World, tmp_path: Path) -> None:
    make_content(tmp_path / "new", size=20_000)
    arguments = _revise(untouched, tmp_path / "new", *keys_of(untouched.centre))
    done = tool(untouched.centre, *arguments, passphrases=WRONG)
    assert done.returncode == Fault.REFUSED.value
    assert said(done).endswith("(keys.wrong-passphrase)")
    in_chinese = tool(untouched.centre, *arguments, passphrases=WRONG, environment=CHINESE)
    assert in_chinese.returncode == Fault.REFUSED.value
    assert "口令" in said(in_chinese)
    assert said(in_chinese).endswith("(keys.wrong-passphrase)")
    no_more = tool(untouched.centre, *arguments, passphrases="")
    assert no_more.returncode == Fault.USAGE.value
    assert said(no_more).endswith("(keys.no-more-passphrases)")


def test_a_wrong_stick_is_told(untouched: World, province: Place, tmp_path: Path) -> None:
    make_content(tmp_path / "new", size=20_000)
    strange = _revise(untouched, tmp_path / "new", *keys_of(province))
    done = tool(untouched.centre, *strange, passphrases=RIGHT)
    assert done.returncode == Fault.REFUSED.value
    assert said(done).endswith("(keys.not-on-stick)")
    gone = _revise(untouched, tmp_path / "new", "--keys", str(tmp_path / "no stick"))
    done = tool(untouched.centre, *gone, passphrases=RIGHT)
    assert (done.returncode, said(done).endswith("(keys.no-stick)")) == (Fault.USAGE.value, True)


def test_a_stick_whose_files_are_damaged_is_told(untouched: World, tmp_path: Path) -> None:
    make_content(tmp_path / "new", size=20_000)
    stick = tmp_path / "stick"
    stick.mkdir()
    for folder in untouched.centre.sticks:
        for path in folder.glob("*.pem"):
            (stick / path.name).write_bytes(path.read_bytes()[:-60])
    done = tool(untouched.centre, *_revise(untouched, tmp_path / "new", "--keys", str(stick)),
                passphrases=RIGHT)  # fmt: skip
    assert (done.returncode, said(done).endswith("(keys.damaged)")) == (Fault.CONTENT.value, True)


def test_a_scope_that_is_not_ones_own_is_refused(untouched: World, province: Place) -> None:
    """A province acts on the nation's bundle, and on a county of another province."""
    done = tool(province, "withdraw", BUNDLE, "--reason", "x", "--yes", *keys_of(province),
                passphrases=RIGHT)  # fmt: skip
    assert done.returncode == Fault.REFUSED.value, done.stderr
    assert said(done).endswith("(publish.out-of-scope)")
    request = untouched.county.folder / f"{untouched.county.code}.request"
    done = tool(province, "node", "accept", str(request), "--yes", *keys_of(province),
                "--address", "10.0.0.1:7440", passphrases=RIGHT)  # fmt: skip
    assert done.returncode == Fault.REFUSED.value, done.stderr
    assert said(done).endswith("(ca.wrong-subtree)")


def test_an_expired_endorsement_is_told_below_and_nothing_new_is_taken(
    shared: World, province: Place
) -> None:
    later = fake_time((datetime.now(UTC) + timedelta(days=4)).strftime("%Y-%m-%d %H:%M:%S"))
    try:
        shared.start(shared.centre, province)
        shared.wait_status(
            province, lambda found: [one.state for one in found.authorities] == ["fresh", "fresh"]
        )
        shared.network.stop(province, shared.centre)
        shared.start(shared.centre, environment=later)
        shared.start(province, environment=later)
        status = shared.wait_status(
            province,
            lambda found: any(one.code == "trust.endorsement-expired" for one in found.problems),
        )
        states = {authority.code: authority.state for authority in status.authorities}
        assert states == {CENTRE: "fresh", PROVINCE: "refused"}
        assert_no_traceback(province)
    finally:
        shared.network.stop(province, shared.centre)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_commands_without_a_daemon_say_how_to_start_it(
    untouched: World, language: str, tmp_path: Path
) -> None:
    environment = CHINESE if language == "zh" else {}
    for arguments in (["status"], ["order", BUNDLE], ["catalogue", "list"], ["verify"]):
        done = tool(untouched.county, *arguments, environment=environment)
        assert done.returncode == Fault.TRANSPORT.value
        line = said(done)
        assert line.endswith("(control.no-daemon)")
        assert f"cuntongd --data {untouched.county.paths.root}" in line
        assert ("启动" in line) == (language == "zh")


def test_a_wrong_data_directory_is_told(untouched: World, tmp_path: Path) -> None:
    here = untouched.county.folder
    untouched.county.folder = tmp_path
    try:
        done = tool(untouched.county, "status")
        assert (done.returncode, said(done).endswith("(control.no-daemon)")) == (69, True)
        for arguments, code in (
            (["authority", "status"], "authority."),
            (["node", "list"], "authority."),
            (["withdraw", BUNDLE, "--reason", "x"], "authority."),
        ):
            done = tool(untouched.county, *arguments)
            assert done.returncode in (64, 77, 78), done.stderr
            assert f"({code}" in said(done)
        (tmp_path / "data").write_text("a file")
        done = tool(untouched.county, "status")
        assert done.returncode == Fault.USAGE.value, done.stderr
        assert said(done)
    finally:
        untouched.county.folder = here


def test_an_enrolment_that_is_killed_at_any_moment_can_be_done_again(tmp_path: Path) -> None:
    source = random.Random(7)
    with running_world(tmp_path) as world:
        place = world.county
        pack = place.folder / f"{place.code}.pack"
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        place.folder = fresh
        for _ in range(20 if IS_FULL else 2):
            shutil.rmtree(fresh)
            shutil.copytree(tmp_path / "net" / str(place.code), fresh)
            for path in (fresh / "data").iterdir():
                if path.name not in ("keys", "lock"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            keys = fresh / "data" / "keys"
            (keys / "node.key").rename(keys / "pending.key")
            (keys / "node.pem").unlink()
            (keys / "anchor.pem").unlink()
            arguments = ["node", "enrol", str(pack), "--listen", f"{place.address}:7440",
                         "--swarm", f"{place.address}:7441"]  # fmt: skip
            process = spawn_tool(place, *arguments)
            time.sleep(source.uniform(0.1, 0.9))  # The moment itself is what is tried.
            process.kill()
            process.wait()
            done = tool(place, *arguments)
            is_done = done.returncode == 0 or "(enrol." in done.stderr or "(node." in done.stderr
            assert is_done, done.stderr
        world.start(world.centre, place)
        world.wait_bundle(place)
        assert_no_traceback(place)


def test_a_publication_that_is_killed_at_any_moment_is_listed_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    source = random.Random(8)
    with running_world(tmp_path) as world:
        centre = world.centre
        world.start(centre)
        revision = 1
        for attempt in range(20 if IS_FULL else 2):
            content = tmp_path / f"new{attempt}"
            make_content(content, size=50_000, seed=attempt + 10)
            arguments = _revise(world, content, *keys_of(centre))
            process = spawn_tool(centre, *arguments, passphrases=RIGHT)
            time.sleep(source.uniform(0.2, 2.0))  # The moment itself is what is tried.
            process.kill()
            process.wait()
            done = tool(centre, *arguments, passphrases=RIGHT)
            if done.returncode:
                assert said(done).endswith("(revise.unchanged)"), done.stderr
            revision += 1
            wait_until(functools.partial(world.has_bundle, centre, revision=revision), centre)
            assert_same(content, library(centre))
        assert_no_traceback(centre)
        world.start(world.county)
        world.wait_bundle(world.county, revision=revision, content=content)
        incoming = [path.name for path in centre.paths.incoming.iterdir()]
        assert incoming == [".lock"]
