"""The only way by which python-tuf gets bytes: files that link, satellite or disk have put down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuf.api.exceptions import DownloadHTTPError

from .tuf_client import FetcherInterface

BASE_URL = "spool:/"
"""What python-tuf puts before each file name; nothing is ever dialled."""

_NOT_FOUND = 404


class SpoolFetcher(FetcherInterface):
    """Reads unverified metadata of one authority.

    Attributes:
        last: Name of the file handed out last. When python-tuf refuses something, this is the culprit: it
            checks each file before it asks for the next.
        lacking: Name of the file that wasn't there when it was last asked for.
    """

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read
        self.last: str | None = None
        self.lacking: str | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE_URL)
        data = self._read(name)
        if data is None:
            self.lacking = name
            raise DownloadHTTPError(f"{name} is not in the spool", _NOT_FOUND)
        self.last = name
        return iter((data,))
