"""Authorities for tests: real keys on real folders, cheap passphrases, a clock that is given."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from cuntong_daemon.authority import keys as keys_module
from cuntong_daemon.authority.endorsement import Request, endorse, install, propose
from cuntong_daemon.authority.keys import KeyRing
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.authority.setup import create_authority, default_plan
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyType
from cuntong_protocol.bundle.descriptor import Descriptor, encode_descriptor
from cuntong_protocol.bundle.metadata import Licence, Metadata
from cuntong_protocol.divisions import Division
from cuntong_protocol.trust.custom import Listed

NOW = dt.datetime(2026, 11, 22, 8, 0, tzinfo=dt.UTC)
PASSPHRASE = "correct horse"


@dataclass
class Answers:
    """Answers passphrase questions from a list, then with the usual one; remembers what was asked."""

    answers: list[str] = field(default_factory=list)
    attempts: int = 1
    asked: list[str] = field(default_factory=list)

    def ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0) if self.answers else PASSPHRASE


@dataclass
class Place:
    """An authority with its sticks."""

    code: Division
    paths: DataPaths
    repository: AuthorityRepository
    sticks: tuple[Path, ...]
    request: Request

    def ring(self, *sticks: int) -> KeyRing:
        """The sticks with these numbers (from 0), all of them by default."""
        chosen = [self.sticks[number] for number in sticks] if sticks else self.sticks
        return KeyRing(chosen, Answers())

    def signer(self, name: str) -> CryptoSigner:
        return self.ring().signer(self.repository.load().settings.keys[name], name)

    def ca_key(self) -> Any:
        return self.ring().private_key(self.repository.load().settings.keys["ca"], "ca")


def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make key files quick to open."""
    monkeypatch.setattr(keys_module, "SCRYPT_COST", 2)
    monkeypatch.setattr(keys_module, "SCRYPT_PARALLELISM", 1)


def make_place(
    folder: Path,
    code: str,
    *,
    name: str = "某地",
    sticks: int = 3,
    now: dt.datetime = NOW,
    key_type: KeyType = "ed25519",
    **plan: Any,
) -> Place:
    """Make an authority below `folder`, with as many sticks as asked for."""
    paths = DataPaths(folder / f"data-{code}")
    folders = tuple(folder / f"stick-{code}-{number}" for number in range(sticks))
    for stick in folders:
        stick.mkdir(parents=True)
    division = Division(code)
    repository = AuthorityRepository(paths.authority)
    request = create_authority(
        repository,
        division,
        name,
        default_plan(division, folders, **plan),
        lambda _stick: PASSPHRASE,
        now=now,
        key_type=key_type,
    )
    return Place(division, paths, repository, folders, request)


def take_in(parent: Place, child: Place, *, now: dt.datetime = NOW, **terms: Any) -> None:
    """Endorse and install."""
    terms = {"until": None, "is_new_epoch": False, **terms}
    proposal = propose(parent.repository.load(), child.request, now=now, **terms)
    response = endorse(
        parent.repository, proposal, [parent.signer("targets")], parent.ca_key(), now=now
    )
    install(child.repository, response, now=now)


def make_listing(
    bundle: str, revision: int = 1, *, licence: Licence | None = None
) -> tuple[Listed, bytes]:
    """A listing and its descriptor; the payload exists nowhere."""
    infohash = hashlib.sha256(f"{bundle} {revision}".encode()).digest()
    descriptor = Descriptor(
        id=bundle,
        revision=revision,
        metadata=Metadata(
            title="戏曲",
            slug=bundle.split("/")[2],
            date=dt.date(2026, 11, 1),
            licence=licence or Licence(),
        ),
        infohash=infohash,
        piece_length=16_384,
        payload_size=1000,
        content_size=2000,
        file_count=3,
        supersedes=None if revision == 1 else _supersedes(revision - 1),
    )
    data = encode_descriptor(descriptor)
    digest = hashlib.sha256(data).hexdigest()
    return Listed(bundle, digest, len(data), revision, 1000, infohash.hex()), data


def _supersedes(revision: int) -> Any:
    from cuntong_protocol.bundle.descriptor import Supersedes

    return Supersedes(revision, bytes(32), bytes(32))


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file and its content, to see that nothing has changed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


class Killed(BaseException):
    """The process is gone: nothing catches this but the test."""


_FILE_EVENTS = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}
)
_state: dict[str, Any] = {"armed": False, "below": "", "left": 0, "count": 0, "hooked": False}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _state["armed"] or event not in _FILE_EVENTS:
        return
    names = [name for name in args if isinstance(name, str | bytes)]
    if event == "open" and not (isinstance(args[2], int) and args[2] & 0o103):  # for writing
        return
    if not any(_state["below"] in (n.decode() if isinstance(n, bytes) else n) for n in names):
        return
    _state["count"] += 1
    if _state["count"] > _state["left"]:
        raise Killed


@contextlib.contextmanager
def killed_after(changes: int, folder: Path) -> Iterator[None]:
    """Let a number of file operations below `folder` pass; every later one fails, clean-up included."""
    if not _state["hooked"]:
        sys.addaudithook(_audit)
        _state["hooked"] = True
    _state.update(armed=True, below=str(folder), left=changes, count=0)
    try:
        yield
    finally:
        _state["armed"] = False


def kill_everywhere(
    run: Callable[[], object], check: Callable[[int], None], reset: Callable[[], None], folder: Path
) -> int:
    """Run `run` once for each file operation it makes, killed at that one; `check` what is left.

    Returns:
        How many moments there were.
    """
    moment = 0
    while True:
        reset()
        try:
            with killed_after(moment, folder):
                run()
        except Killed:
            check(moment)
            moment += 1
            continue
        return moment
