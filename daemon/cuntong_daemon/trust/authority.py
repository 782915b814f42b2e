"""One followed authority: what is accepted of it, what is pending, and how an update is taken (SPEC 4.6, 4.7)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from datetime import datetime

from tuf.api._payload import Root
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata

from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import N_, Sentence
from cuntong_protocol.trust.custom import (
    Contents,
)
from cuntong_protocol.trust.names import (
    MAX_ROOT_BYTES,
    MAX_TIMESTAMP_BYTES,
    MEMBERS,
    PROMOTED,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    WITHDRAWN,
    TrustError,
    is_version,
    metadata_path,
    timestamp_path,
)

from .accepted import (
    AcceptedCatalogue,
    hinted_time,
    load_accepted,
    sha256_of,
)
from .fetcher import SpoolFetcher
from .floors import Accepted, Equivocation, Floor, Floors, RoleFile
from .judging import check_root, compare_timestamps, countable, proven_time
from .members import MembersReader
from .roles import lacking, load_roles, why_stuck
from .spool import Spool
from .verifier import (
    Documents,
    Verification,
    explain,
    is_signed_timestamp,
)
from .view import Missing

MAX_ATTEMPTS = 8
"""Bad files dropped in one refresh; each costs one run of the verifier."""
MAX_TRIES = 3
"""How often a file that was refused is asked for again, until there is a newer timestamp."""
MAX_REFUSED = 64
"""Hashes of refused timestamps remembered, so that they aren't fetched again."""

_TIMESTAMP_NAME = f"{TIMESTAMP}.json"
_FIRST_ROLES = (TARGETS, WITHDRAWN, MEMBERS, PROMOTED)


class Authority:
    """The state of one authority. `Federation` owns it; one thread at a time."""

    def __init__(self, code: Division, spool: Spool, floors: Floors) -> None:
        """Load what was accepted earlier.

        Raises:
            sqlite3.Error: the database can't be read.
        """
        self.code = code
        self._spool = spool
        self._floors = floors
        self._scratch = spool.paths.trusted / ".verify"
        self.floor: Floor | None = floors.load(code)
        self.accepted: AcceptedCatalogue | None = None
        self.problem: Sentence | None = None
        self.waiting: tuple[Missing, ...] = ()
        self.members = MembersReader(code, spool, floors)
        self._tries: dict[str, int] = {}
        self._refused: dict[str, None] = {}
        self._suspect: str | None = None
        self._probed: tuple[str, int] | None = None
        self._tried: object = None
        self._seen: frozenset[str] = frozenset()
        self._next_root = 0
        self._is_void = False
        self._look_at_root()
        if self.floor is not None and self.floor.accepted is not None:
            self.accepted = load_accepted(code, self.floor.accepted, spool)

    # -- What is known ---------------------------------------------------------------------------

    @property
    def proven_time(self) -> datetime | None:
        """Its proven time."""
        return None if self.floor is None else self.floor.proven_time

    @property
    def contents(self) -> Contents:
        """What its last complete catalogue says; nothing when there is none."""
        return Contents() if self.accepted is None else self.accepted.contents

    def wants(self, version: int, sha256: str) -> bool:
        """Whether a timestamp that somebody announces is news. Any thread may ask."""
        # A lower version is looked at, too, once: after the theft of an online key a new root makes
        # versions start again, and this is how a node learns of it.
        return version >= 1 and sha256 not in self._seen

    # -- Updating --------------------------------------------------------------------------------

    def start(self, root: bytes) -> None:
        """Take the first root of an epoch, whose hash was endorsed."""
        self._floors.set_root(self.code, root)
        self._reload()

    def begin_epoch(self, epoch: int, anchor: str, proven_time: datetime) -> None:
        """Start (afresh) with another root."""
        self._floors.begin_epoch(self.code, epoch, anchor, proven_time)
        self._probed = None
        self.waiting = ()
        self._reload()

    def raise_epoch(self, epoch: int) -> None:
        """Remember a higher epoch of the same root."""
        self._floors.raise_epoch(self.code, epoch)
        self._reload()

    def _reload(self) -> None:
        before = self.floor
        self.floor = self._floors.load(self.code)
        if _root(before) != _root(self.floor):
            # What an old key made impossible, a new one may make good.
            self._refused.clear()
            self._tries.clear()
            self._suspect = None
        self._look_at_root()

    def _look_at_root(self) -> None:
        """Work out what the newest root means: the next one's number, and whether it voids the timestamp."""
        documents = None if self.floor is None else self.floor.documents
        self._next_root, self._is_void = 0, False
        if documents is None:
            return
        try:
            self._next_root = Metadata[Root].from_bytes(documents.root).signed.version + 1
        except RepositoryError:
            return  # A first root that isn't one is refused at the next run.
        self._is_void = (
            documents.timestamp is not None
            and is_signed_timestamp(documents.timestamp, documents.root) is None
        )

    def update(self, enrolled: datetime, above: datetime, clock: datetime | None) -> None:
        """Verify what the spool holds, as far as it goes, and accept it when it is complete.

        Never raises for what others sent; `problem` says what was refused, `waiting` what is to be fetched.

        Args:
            enrolled: Proven from the start.
            above: The highest proven time of the authorities above.
            clock: This machine's, in the strict profile; None in the tolerant one.
        """
        try:
            try:
                self._update(enrolled, above, clock)
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)
        except (OSError, sqlite3.Error) as error:
            self.problem = TrustError(
                "trust.cannot-write",
                N_(
                    "The catalogue of {authority} can't be stored: {reason}. The last verified one stays; make room or mend the disk."
                ),
                authority=self.code,
                reason=str(error),
            ).sentence
            self._tried = None  # The next refresh may find room.
            self._reload_quietly()
        self._remember_seen()

    def _remember_seen(self) -> None:
        documents = None if self.floor is None else self.floor.documents
        known = (
            None if documents is None else documents.timestamp,
            self._spool.read_spooled(self.code, _TIMESTAMP_NAME),
        )
        self._seen = frozenset(
            (*self._refused, *(sha256_of(one) for one in known if one is not None))
        )

    def _reload_quietly(self) -> None:
        try:
            self._reload()
        except sqlite3.Error:
            return  # What was in memory was committed earlier: it still holds.

    def _update(self, enrolled: datetime, above: datetime, clock: datetime | None) -> None:
        for number in range(MAX_ATTEMPTS):
            floor = self.floor
            if floor is None or floor.documents is None:
                return
            if not self._has_work(floor, floor.documents, is_first=number == 0):
                break
            # Without a change another run would end like the last one; for expiry the day is exact
            # enough. It is taken before the run, so that what arrives meanwhile is noticed.
            tried = (
                self._spool.fingerprint(self.code),
                floor.documents,
                floor.epoch,
                above.date(),
                clock and clock.date(),
            )
            if tried == self._tried:
                break
            self._tried = tried
            self.waiting = ()
            if number == 0:
                self.problem = None
            if not self._attempt(floor, floor.documents, enrolled, above, clock):
                break
        self._ask_for_next_root()

    def _has_work(self, floor: Floor, documents: Documents, *, is_first: bool) -> bool:
        timestamp = self._spool.read_spooled(self.code, _TIMESTAMP_NAME)
        is_known = timestamp is None or timestamp == documents.timestamp
        is_news = (
            timestamp is not None and not is_known and sha256_of(timestamp) not in self._refused
        )
        if is_news or self._spool.has_spooled(self.code, self._next_root_name()):
            return True
        if documents.timestamp is None or self._is_void:
            # One that is there and doesn't count isn't asked for again: a newer one will be announced.
            path = timestamp_path(self.code)
            is_asked = timestamp is None and self._tries.get(path, 0) < MAX_TRIES
            self.waiting = (Missing(path, MAX_TIMESTAMP_BYTES),) if is_asked else ()
            return False
        is_complete = (
            floor.accepted is not None
            and floor.accepted.timestamp == documents.timestamp
            and floor.accepted.epoch == floor.epoch
            and self.accepted is not None
            and not self.accepted.damaged
        )
        if is_complete:
            self.waiting = ()
            if is_known and is_first:
                self.problem = None  # What was refused in an earlier refresh is gone.
        return not is_complete

    def _next_root_name(self) -> str:
        return f"{self._next_root}.{ROOT}.json"

    def _ask_for_next_root(self) -> None:
        """A new root can come at any time: ask once for each timestamp, and whenever one isn't signed rightly."""
        if self.floor is None or self.floor.documents is None:
            return
        timestamp = self._suspect or (
            sha256_of(self.floor.documents.timestamp) if self.floor.documents.timestamp else None
        )
        if timestamp is None or self._probed == (timestamp, self._next_root):
            return
        self._probed = (timestamp, self._next_root)
        path = metadata_path(self.code, ROOT, self._next_root)
        self.waiting = (Missing(path, MAX_ROOT_BYTES, is_optional=True), *self.waiting)

    def _attempt(
        self,
        floor: Floor,
        documents: Documents,
        enrolled: datetime,
        above: datetime,
        clock: datetime | None,
    ) -> bool:
        """One run. True when another one may get further."""
        offered = self._spool.read_spooled(self.code, _TIMESTAMP_NAME)
        if offered is not None and self._is_second(offered, documents):
            return True
        own = enrolled if self._is_void else floor.proven_time
        reference = max(
            own, enrolled, hinted_time(offered), clock or enrolled, above if clock else enrolled
        )
        fetcher = SpoolFetcher(lambda name: self._read(name, documents))
        good = self._good_files(floor)
        try:
            run = Verification(self._scratch, documents, good, fetcher, reference)
        except RepositoryError as error:
            self.problem = explain(self.code, error).sentence
            return False
        failure: Exception | None = None
        roles: dict[str, int] = {}
        problems: tuple[Sentence, ...] = ()
        try:
            run.refresh()
            check_root(self.code, run, max(above, clock or above))
            roles, problems = load_roles(self.code, run)
        except (RepositoryError, DownloadError, TrustError) as error:
            if isinstance(error.__cause__, OSError):  # The spool can't be read: no file is bad.
                raise error.__cause__ from error
            failure = error
        verified = countable(run, documents)
        proven = proven_time(verified, documents, own)
        if failure is None:
            self._accept(run, floor, verified, proven, roles, problems)
            return False
        progressed = verified.root != documents.root
        if verified != documents or proven != floor.proven_time:
            self._keep(run, verified, proven)
        if isinstance(failure, DownloadHTTPError):
            wanted = lacking(self.code, run, good, self._spool)
            self.waiting = tuple(one for one in wanted if self._tries.get(one.path, 0) < MAX_TRIES)
            if not wanted and self.problem is None:
                stuck = why_stuck(self.code, fetcher.lacking or "", good, reference)
                self.problem = stuck.sentence
            return progressed
        return self._refuse(failure, fetcher, offered, progressed=progressed)

    def _read(self, name: str, documents: Documents) -> bytes | None:
        data = self._spool.read_spooled(self.code, name)
        if name == _TIMESTAMP_NAME and (data is None or sha256_of(data) in self._refused):
            # Whatever lies in the spool, an update that was begun goes on.
            return None if self._is_void else documents.timestamp
        return data

    def _good_files(self, floor: Floor) -> dict[str, bytes]:
        good: dict[str, bytes] = {}
        if floor.accepted is None or floor.accepted.epoch != floor.epoch:
            return good
        for role, file in floor.accepted.roles.items():
            if role == SNAPSHOT:
                continue  # The floor's own is at least as new.
            data = self._spool.read_trusted(self.code, role, file.version, file.sha256)
            if data is not None:
                good[role] = data
        return good

    def _is_second(self, offered: bytes, documents: Documents) -> bool:
        """True when this is another signed timestamp of the same version; it is out of the way then."""
        if offered == documents.timestamp or sha256_of(offered) in self._refused:
            return False
        first, second = compare_timestamps(documents, offered)
        if first is None or second is None:
            return False
        if first.content != second.content:
            self._floors.record_equivocation(
                Equivocation(self.code, first.version, first.sha256, second.sha256, offered)
            )
        self._drop(_TIMESTAMP_NAME, offered)
        return True

    def _keep(self, run: Verification, verified: Documents, proven: datetime) -> None:
        """Raise the floor though the update isn't complete."""
        self._spool.write_trusted(
            self.code, [(f"{number}.root.json", data) for number, data in run.roots().items()]
        )
        self._floors.raise_floor(self.code, verified, proven, None)
        before = None if self.floor is None else self.floor.documents
        if before is None or before.timestamp != verified.timestamp:
            self._tries.clear()
        self._reload()

    def _accept(
        self,
        run: Verification,
        floor: Floor,
        verified: Documents,
        proven: datetime,
        roles: Mapping[str, int],
        problems: tuple[Sentence, ...],
    ) -> None:
        """Write the whole catalogue, then make it count in one transaction (SPEC 4.6)."""
        files: list[tuple[str, bytes]] = [
            (f"{number}.root.json", data) for number, data in sorted(run.roots().items())
        ]
        index: dict[str, RoleFile] = {}
        root, timestamp, snapshot = run.top()
        versions = {**roles, SNAPSHOT: snapshot.version}
        if not all(map(is_version, (timestamp.version, root.version, *versions.values()))):
            self.problem = TrustError(
                "trust.bad-version",
                N_("{authority} signed a version number beyond all counting: it is refused."),
                authority=self.code,
            ).sentence
            return
        for role, version in versions.items():
            data = run.data(role)
            files.append((f"{version}.{role}.json", data))
            index[role] = RoleFile(version, sha256_of(data))
        # The timestamp comes last: until then nobody below is told of the rest.
        accepted = Accepted(run.data(TIMESTAMP), floor.epoch, index)
        files.append((_TIMESTAMP_NAME, accepted.timestamp))
        self._spool.write_trusted(self.code, files)
        self._floors.raise_floor(self.code, verified, proven, accepted)
        self._reload()
        self.accepted = load_accepted(self.code, accepted, self._spool, problems)
        self.problem = None
        self.waiting = ()
        self._suspect = None
        self._tries.clear()
        self._spool.prune_trusted(self.code, [*versions.items(), (ROOT, root.version)])
        for role, version in (*versions.items(), (ROOT, root.version)):
            self._spool.drop_older(self.code, role, version)

    def _refuse(
        self,
        failure: Exception,
        fetcher: SpoolFetcher,
        offered: bytes | None,
        *,
        progressed: bool,
    ) -> bool:
        """Put the file at fault out of the way. True when a run without it may get further."""
        problem = (
            failure.sentence
            if isinstance(failure, CuntongError)
            else explain(self.code, failure).sentence
        )
        if isinstance(failure, ExpiredMetadataError | TrustError):
            # Nothing is wrong with the file itself; another time or endorsement may let it pass.
            self.problem = problem
            return progressed
        name = fetcher.last
        if name == _TIMESTAMP_NAME and isinstance(failure, UnsignedMetadataError) and offered:
            sha256 = sha256_of(offered)
            if sha256 not in (self._suspect, *self._refused):
                # Perhaps a new root has replaced the key: that is asked for before it is thrown away.
                self.problem = problem
                self._suspect = sha256
                return progressed
        if name == _TIMESTAMP_NAME and offered is None:
            return progressed  # Our own last timestamp, void by the root that has just come.
        self.problem = problem
        if name is None:
            return progressed
        path = f"metadata/{self.code}/{name}"
        self._tries[path] = self._tries.get(path, 0) + 1
        data = self._spool.read_spooled(self.code, name)
        if data is None:
            return progressed
        return self._drop(name, data) or progressed

    def _drop(self, name: str, data: bytes) -> bool:
        """Remove a refused file from the spool. True when that changed anything."""
        if name == _TIMESTAMP_NAME:
            self._suspect = None
            self._refused[sha256_of(data)] = None
            while len(self._refused) > MAX_REFUSED:
                self._refused.pop(next(iter(self._refused)))
        if self._spool.read_spooled(self.code, name) == data:
            self._spool.drop_spooled(self.code, name)
        return name == _TIMESTAMP_NAME or not self._spool.has_spooled(self.code, name)

    # -- Members -----------------------------------------------------------------------------------

    def read_members(self) -> tuple[Missing | None, Sentence | None]:
        """Bring `members` up to date; what is to be fetched for that, and the problem, if any."""
        listed = self.contents.members
        if listed is not None:
            return self.members.read(listed, None if self.floor is None else self.floor.members)
        if self.accepted is not None and not self.accepted.damaged:
            self.members.clear()
        return None, None


def _root(floor: Floor | None) -> bytes | None:
    return None if floor is None or floor.documents is None else floor.documents.root
