"""Reading a folder once: it is hashed, and what will be stored as it is is copied meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from cuntong_protocol.bundle.packing import PACKED_BELOW_BYTES, Content

from .copying import Copier
from .hashing import Hashed, hash_files
from .scan import Scan, SourceFile


class FolderReader:
    """Hashes a scanned folder.

    A file that is too long for a pack is copied from when its hashing begins, unless an earlier one has its length and could
    be equal to it: that one, and what doesn't compress, is copied once it is hashed. So no content is copied twice,
    and only what a pack of an earlier bundle holds may be copied in vain.

    Attributes:
        files: All files in path order.
        first: For each content that isn't empty the first file with it, which stands for the others.
        offered_bytes: Of the files that were given to the copier.
    """

    def __init__(self, scan: Scan, copier: Copier, report_copying: Callable[[], None]) -> None:
        """Read what was scanned; `report_copying` is called now and then."""
        self._scan = scan
        self._copier = copier
        self._report_copying = report_copying
        self._paths: dict[bytes, list[str]] = {}
        self._early: dict[int, str] = {}  # By length, what is copied from the beginning.
        self._hashed_bytes = 0  # Of what was offered.
        self.files: list[Hashed] = []
        self.first: dict[bytes, Hashed] = {}
        self.offered_bytes = 0

    def read(self, threads: int, on_bytes: Callable[[int], None]) -> None:
        """Hash everything; errors as `hash_files` and `Copier.check`."""
        hash_files(
            self._scan.files,
            threads,
            on_start=self._start,
            on_bytes=on_bytes,
            on_hashed=self._take,
        )

    def contents(self) -> list[Content]:
        """The distinct contents, to be planned."""
        return [
            Content(root, hashed.file.size, tuple(self._paths[root]), hashed.is_packable)
            for root, hashed in self.first.items()
        ]

    def _start(self, file: SourceFile, length: int) -> None:
        if file.size >= PACKED_BELOW_BYTES and file.size not in self._early:
            self._early[file.size] = file.path
            self._offer(file)
        if self._is_early(file):
            self._hashed_bytes += length
        self._copier.keep_near(self._hashed_bytes, self._report_copying)

    def _take(self, hashed: Hashed) -> None:
        self.files.append(hashed)
        file, root = hashed.file, hashed.root
        if not file.size:
            return
        self._paths.setdefault(root, []).append(file.path)
        is_new = self.first.setdefault(root, hashed) is hashed
        if is_new and not hashed.is_packable and not self._is_early(file):
            self._hashed_bytes += file.size
            self._offer(file)

    def _is_early(self, file: SourceFile) -> bool:
        return self._early.get(file.size) == file.path

    def _offer(self, file: SourceFile) -> None:
        self.offered_bytes += file.size
        self._copier.offer(file)
