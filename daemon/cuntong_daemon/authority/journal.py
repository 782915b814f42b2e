"""Changing several files of a folder at once, so that a kill at any moment leaves the old or the new.

A change is first written whole into `commit.tmp/`. Renaming that to `commit/` is the one moment at which
it happens; moving the files to their places, in the order given, is then only a matter of time: whoever
takes the lock next finishes it (`Journal.recover`). No key is needed for that. A reader without the lock
sees the files appear in that order: what is named last (the timestamp) appears last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cuntong_daemon.files import sync_folder, write_atomically
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .keys import AuthorityError

LOCK_TIMEOUT_S = 20.0
"""Nobody holds the lock while a person is asked something, so this is long."""
LOCK_POLL_S = 0.05
PRIVATE_MODE = 0o600
PUBLIC_MODE = 0o644


class _Manifest(msgspec.Struct, frozen=True):
    files: list[str]
    remove: list[str]


class Journal:
    """The files below one folder, changed by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._staged = folder / "commit.tmp"
        self._decided = folder / "commit"

    def make_folder(self) -> None:
        """Make the folder, readable for its owner and group only.

        Raises:
            AuthorityError: `authority.cannot-write`.
        """
        with _sentence_for_os_errors(self.folder):
            self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; a change that a killed process had decided on is finished first.

        Raises:
            AuthorityError: `authority.busy`, `authority.cannot-write`.
        """
        with _sentence_for_os_errors(self.folder):
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, self.folder)
            with _sentence_for_os_errors(self.folder):
                self.recover()
            yield
        finally:
            os.close(lock)

    def recover(self) -> None:
        """Finish or forget what a killed process left. The lock must be held."""
        if self._staged.exists():
            shutil.rmtree(self._staged)
        if self._decided.exists():
            self._apply()

    def commit(
        self, files: Mapping[str, bytes], *, remove: Sequence[str] = (), private: Sequence[str] = ()
    ) -> None:
        """Write all files, or none. The lock must be held.

        Args:
            files: Path below the folder -> content, in the order in which they shall appear.
            remove: Paths that go, after the files have appeared.
            private: Which of the files only the owner may read.

        Raises:
            AuthorityError: `authority.cannot-write` when nothing has changed; `authority.unfinished` when the
                system failed in the short time after the decision: the next `recover` finishes it.
        """
        with _sentence_for_os_errors(self.folder):
            try:
                self._stage(files, remove, private)
                self._staged.replace(self._decided)
            except BaseException:
                shutil.rmtree(self._staged, ignore_errors=True)
                raise
        try:
            sync_folder(self.folder)
            self._apply()
        except OSError as error:
            raise AuthorityError(
                "authority.unfinished",
                N_(
                    "{folder} can't be written: {reason}. The change is safe and will be finished by the next command."
                ),
                fault=Fault.SYSTEM,
                folder=str(self.folder),
                reason=error.strerror or str(error),
            ) from error

    def _stage(
        self, files: Mapping[str, bytes], remove: Sequence[str], private: Sequence[str]
    ) -> None:
        self._staged.mkdir(mode=0o700)
        for number, (name, data) in enumerate(files.items()):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            mode = PRIVATE_MODE if name in private else PUBLIC_MODE
            write_atomically(self._staged / str(number), data, mode=mode)
        manifest = msgspec.json.encode(_Manifest(list(files), list(remove)))
        write_atomically(self._staged / "manifest", manifest)

    def _apply(self) -> None:
        manifest_path = self._decided / "manifest"
        if manifest_path.exists():
            manifest = msgspec.json.decode(manifest_path.read_bytes(), type=_Manifest)
            for number, name in enumerate(manifest.files):
                staged = self._decided / str(number)
                if staged.exists():
                    staged.replace(self.folder / name)
            for name in manifest.remove:
                (self.folder / name).unlink(missing_ok=True)
            for parent in {(self.folder / name).parent for name in manifest.files}:
                sync_folder(parent)
            manifest_path.unlink()
        self._decided.rmdir()
        sync_folder(self.folder)


def _lock(lock: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise AuthorityError(
                    "authority.busy",
                    N_("Another program is changing {folder}. Try again when it has ended."),
                    fault=Fault.SYSTEM,
                    folder=str(folder),
                ) from None
            time.sleep(LOCK_POLL_S)
        else:
            return


@contextlib.contextmanager
def _sentence_for_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuthorityError(
            "authority.cannot-write",
            N_(
                "{folder} can't be written: {reason}. Nothing was changed; mend that and try again."
            ),
            fault=Fault.SYSTEM,
            folder=str(folder),
            reason=error.strerror or str(error),
        ) from error
