"""Catalogues from the air into the trust layer's spool (SPEC 11.8). Everything here blocks."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.datacast.errors import DatacastError
from cuntong_protocol.datacast.objects import (
    Item,
    Ref,
    catalogue_head,
    catalogue_items,
    check_object,
)
from cuntong_protocol.divisions import Division
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import (
    blob_path,
    metadata_path,
    parse_metadata_name,
    timestamp_path,
)

TIMESTAMP_FILE = "timestamp.json"


def read_object(path: Path, ref: Ref) -> bytes:
    """An object that lies in a file.

    Raises:
        OSError: it can't be read.
        DatacastError: `datacast.bad-object`: it is another one.
    """
    data = path.read_bytes()
    check_object(ref, data)
    return data


class CatalogueIntake:
    """Unpacks snapshots and deltas; keeps each authority's last snapshot, which its deltas need."""

    def __init__(self, spool: Spool, folder: Path) -> None:
        self._spool = spool
        self._folder = folder

    def snapshot_path(self, authority: str) -> Path:
        """Where an authority's last snapshot lies."""
        return self._folder / authority

    def take(self, authority: Division, path: Path, ref: Ref, *, is_superseded: bool) -> int:
        """Put a catalogue's files into the spool; the trust layer judges them.

        Args:
            authority: Whose it must be.
            path: Where the object lies.
            ref: What it must be.
            is_superseded: It is a snapshot whose delta comes next. Its timestamp is left out, since going back to it
                from the delta's would look like an attack.

        Returns:
            How many files were new.

        Raises:
            OSError: the disk refuses.
            DatacastError: `datacast.bad-object`, `datacast.newer-version`, `datacast.no-base`.
            TrustError: a name that is none, too large a file, or too many.
        """
        data = read_object(path, ref)
        head = catalogue_head(data, authority)
        bases: dict[str, bytes] = {}
        if head.bases:
            wanted = {base.name: base.sha256 for base in head.bases}
            bases = self._bases(authority, wanted)
            if bases.keys() != wanted.keys():
                raise DatacastError(
                    "datacast.no-base",
                    N_(
                        "The newest catalogue of {authority} needs an older one that isn't here; it comes with the next round."
                    ),
                    authority=authority,
                )
        return sum(
            self._store(authority, item)
            for item in catalogue_items(data, head, bases)
            if not (is_superseded and item.name == TIMESTAMP_FILE)
        )

    def _bases(self, authority: Division, wanted: dict[str, bytes]) -> dict[str, bytes]:
        """Files of the last snapshot with these hashes."""
        try:
            snapshot = self.snapshot_path(authority).read_bytes()
        except FileNotFoundError:
            return {}
        head = catalogue_head(snapshot, authority)
        return {
            item.name: item.data
            for item in catalogue_items(snapshot, head, {})
            if wanted.get(item.name) == sha256(item.data).digest()
        }

    def _store(self, authority: Division, item: Item) -> bool:
        if not item.name:
            digest = sha256(item.data).hexdigest()
            if self._spool.read(blob_path(digest)) is not None:
                return False
            self._spool.store_blob(digest, item.data)
            return True
        role, version = parse_metadata_name(item.name)
        path = (
            timestamp_path(authority)
            if version is None
            else metadata_path(authority, role, version)
        )
        if self._spool.read(path) == item.data:
            return False
        self._spool.store_metadata(authority, item.name, item.data)
        return True
