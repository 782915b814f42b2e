"""The members list of one authority: the newest that could be read stays in force (SPEC 5.4)."""

from __future__ import annotations

from collections.abc import Mapping

from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import Sentence
from cuntong_protocol.trust.custom import BlobRef
from cuntong_protocol.trust.members import Member, decode_members
from cuntong_protocol.trust.names import TrustError, blob_path

from .floors import Floors
from .spool import Spool
from .view import Missing


class MembersReader:
    """Reads the list that is signed, and stays with the last one while that is on its way or unreadable.

    Attributes:
        members: The list in force.
        sha256: Its hash.
    """

    def __init__(self, code: Division, spool: Spool, floors: Floors) -> None:
        self._code = code
        self._spool = spool
        self._floors = floors
        self._bad: dict[str, Sentence] = {}
        self.members: Mapping[Division, Member] = {}
        self.sha256: str | None = None

    def clear(self) -> None:
        """The authority signs no list (any more)."""
        self.members, self.sha256 = {}, None

    def read(self, listed: BlobRef, previous: str | None) -> tuple[Missing | None, Sentence | None]:
        """Take the list that is signed.

        Args:
            listed: It.
            previous: The hash of the one that was in force before the last restart.

        Returns:
            The blob to fetch and the problem, if any.
        """
        if listed.sha256 == self.sha256:
            return None, None
        missing: Missing | None = None
        problem = self._bad.get(listed.sha256)
        if problem is None:
            data = self._spool.read_blob(listed.sha256)
            if data is None:
                missing = Missing(blob_path(listed.sha256), listed.length)
            else:
                problem = self._take(listed.sha256, data)
                if problem is None:
                    self._floors.set_members(self._code, listed.sha256)
                else:
                    self._bad = {listed.sha256: problem}
        if self.sha256 is None and previous is not None:
            data = self._spool.read_blob(previous)
            if data is not None:
                self._take(previous, data)
        return missing, problem

    def _take(self, sha256: str, data: bytes) -> Sentence | None:
        try:
            self.members = decode_members(data, authority=self._code).members
        except TrustError as error:
            return error.sentence
        self.sha256 = sha256
        return None
