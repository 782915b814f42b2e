"""The command line that theupdateframework/tuf-conformance demands, over Cuntong's own trust layer.

It drives what the daemon drives: `SpoolFetcher`, `Verification` and the durable `Floors`. Only the way into the
spool differs: what the verifier asks for is fetched by HTTP and put down there first. The suite looks into
METADATA_DIR; what was verified is copied there after each run.

`--profile tolerant` judges expiry by proven time, which none of the suite's repositories has: it never expires
anything, so exactly the suite's five expiry cases fail (`tolerant.xfails`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError

from cuntong_daemon.trust.fetcher import SpoolFetcher
from cuntong_daemon.trust.floors import Floors
from cuntong_daemon.trust.verifier import Verification
from cuntong_protocol.divisions import NATION

MAX_OBJECT_BYTES = 16 * 1024 * 1024
"""More than the suite ever serves; python-tuf's own limits are far below."""
TIMEOUT_S = 60
"""Loopback, but the suite serves from one thread and the machine may be busy."""
NEVER_PROVEN = datetime(2000, 1, 1, tzinfo=UTC)
_TOP = ("root", "timestamp", "snapshot")


class HttpSpool:
    """Fetches by HTTP what the verifier asks for, and hands it out from a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, url: str) -> bytes | None:
        path = self._folder / hashlib.sha256(url.encode()).hexdigest()
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 (loopback)
                path.write_bytes(response.read(MAX_OBJECT_BYTES))
        except urllib.error.HTTPError as error:
            if error.code in (403, 404):
                return None
            raise DownloadError(str(error)) from error
        return path.read_bytes()


class Client:
    """One invocation of the client."""

    def __init__(self, metadata_dir: Path, profile: str) -> None:
        self._metadata_dir = metadata_dir
        self._profile = profile
        self._state = metadata_dir / ".cuntong"
        self._state.mkdir(exist_ok=True)
        self._floors = Floors(sqlite3.connect(self._state / "state.sqlite"))

    def init(self, root: Path) -> None:
        data = root.read_bytes()
        self._floors.bootstrap(NATION, hashlib.sha256(data).hexdigest(), data, NEVER_PROVEN)
        (self._metadata_dir / "root.json").write_bytes(data)

    def refresh(self, metadata_url: str) -> None:
        self._run(metadata_url, "", lambda run: run.refresh())

    def download(
        self, metadata_url: str, targets_url: str, target_dir: Path, names: list[str]
    ) -> None:
        def load(run: Verification) -> None:
            run.updater.target_dir = str(target_dir)
            for name in names:
                found = run.updater.get_targetinfo(name)
                if found is None:
                    raise RepositoryError(f"{name} isn't listed")
                if run.updater.find_cached_target(found) is None:
                    run.updater.download_target(found)

        self._run(metadata_url, targets_url, load)

    def _run(
        self, metadata_url: str, targets_url: str, load: Callable[[Verification], None]
    ) -> None:
        floor = self._floors.load(NATION)
        if floor is None or floor.documents is None:
            raise RepositoryError("init comes first")
        roles = {
            path.name.removesuffix(".json"): path.read_bytes()
            for path in self._metadata_dir.glob("*.json")
            if path.name.removesuffix(".json") not in _TOP
        }
        spool = HttpSpool(self._state / "spool")
        scratch = self._state / "scratch"
        now = datetime.now(UTC) if self._profile == "strict" else floor.proven_time
        run = Verification(
            scratch,
            floor.documents,
            roles,
            SpoolFetcher(spool.read),
            now,
            base_url=metadata_url,
            targets_url=targets_url or None,
        )
        try:
            load(run)
        finally:
            self._floors.raise_floor(NATION, run.documents(), floor.proven_time, None)
            for path in scratch.glob("*.json"):
                shutil.copyfile(path, self._metadata_dir / path.name)


def main() -> int:
    """Run one command of CLIENT-CLI.md; 0 when it succeeded fully."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--profile",
        choices=("strict", "tolerant"),
        default=os.environ.get("CUNTONG_PROFILE", "strict"),
    )
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    arguments = parser.parse_args()
    client = Client(arguments.metadata_dir, arguments.profile)
    try:
        if arguments.command == "init":
            client.init(arguments.root)
        elif arguments.command == "refresh":
            client.refresh(arguments.metadata_url)
        else:
            client.download(
                arguments.metadata_url,
                arguments.target_base_url,
                arguments.target_dir,
                arguments.target_name,
            )
    except (RepositoryError, DownloadError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
