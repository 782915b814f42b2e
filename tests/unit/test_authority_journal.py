"""All files or none, whenever the process dies."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cuntong_daemon.authority import journal as journal_module
from cuntong_daemon.authority.journal import Journal
from cuntong_daemon.authority.keys import AuthorityError
from tests.support.authorities import files_below, kill_everywhere

OLD = {"a": b"old a", "sub/b": b"old b", "gone": b"old"}
NEW = {"a": b"new a", "sub/b": b"new b", "other/c": b"new c"}


def _prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in OLD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _commit(folder: Path) -> None:
    journal = Journal(folder)
    with journal.locked():
        journal.commit(NEW, remove=["gone"], private=["a"])


def test_commit_writes_and_removes_all(tmp_path: Path) -> None:
    _prepare(tmp_path / "f")
    _commit(tmp_path / "f")
    assert files_below(tmp_path / "f") == NEW
    assert (tmp_path / "f" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "f" / "sub" / "b").stat().st_mode & 0o777 == 0o644


def test_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    seen = set()

    def check(_moment: int) -> None:
        with Journal(folder).locked():
            found = files_below(folder)
        assert found in (OLD, NEW)
        seen.add(found == NEW)

    moments = kill_everywhere(lambda: _commit(folder), check, lambda: _prepare(folder), folder)
    assert moments > 15
    assert seen == {False, True}


def test_kill_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    journal = Journal(folder)

    def decided() -> None:
        _prepare(folder)
        with journal.locked():
            journal._stage(NEW, ["gone"], [])
            journal._staged.replace(journal._decided)

    def recover() -> None:
        with journal.locked():
            pass

    def check(_moment: int) -> None:
        recover()
        assert files_below(folder) == NEW

    assert kill_everywhere(recover, check, decided, folder) > 5


@pytest.mark.parametrize("failing", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_full_or_read_only_disk_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    folder = tmp_path / "f"
    _prepare(folder)
    calls = []

    def write(path: Path, data: bytes, **_options: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(failing, os.strerror(failing))
        path.write_bytes(data)

    monkeypatch.setattr(journal_module, "write_atomically", write)
    with pytest.raises(AuthorityError) as caught:
        _commit(folder)
    assert caught.value.code == "authority.cannot-write"
    assert files_below(folder) == OLD
    assert not (folder / "commit.tmp").exists()


def test_disk_that_fails_after_the_decision_is_told_and_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "f"
    _prepare(folder)

    def fail(_folder: Path) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "sync_folder", fail)
        with pytest.raises(AuthorityError) as caught:
            _commit(folder)
    assert caught.value.code == "authority.unfinished"
    with Journal(folder).locked():
        assert files_below(folder) == NEW


def _hold(folder: Path, ready: Any, done: Any) -> None:
    with Journal(folder).locked():
        ready.set()
        done.wait(30)


def test_second_process_is_told_that_the_folder_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "LOCK_TIMEOUT_S", 0.0)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, done))
    process.start()
    try:
        assert ready.wait(30)
        with pytest.raises(AuthorityError) as caught, Journal(tmp_path).locked():
            pass
        assert caught.value.code == "authority.busy"
    finally:
        done.set()
        process.join()
    with Journal(tmp_path).locked():
        pass


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError) as caught, Journal(tmp_path / "none").locked():
        pass
    assert caught.value.code == "authority.cannot-write"
