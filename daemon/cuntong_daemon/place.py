"""What can be told before anything runs: that this is the right place, and that its disk can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cuntong_protocol.enrolment import EnrolmentError
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

from .catalogue import check_database
from .config import Config, ConfigError
from .files import remove_unfinished
from .paths import DataPaths
from .pki.certificates import (
    KeyFiles,
    certificate_code,
    load_chain,
    load_private_key,
    not_enrolled,
    own_certificate,
)
from .reserve import Reserve
from .store.errors import is_disk_full

FOLDER_MODE = 0o750


class StartError(CuntongError):
    """The daemon can't start on this machine as it is."""

    fault = Fault.SYSTEM


def check_place(config: Config, paths: DataPaths) -> None:
    """Refuse to start where it can't go well; make the folders that are missing, remove what was half-written. Blocks.

    Raises:
        EnrolmentError: `node.not-enrolled`.
        ConfigError: `node.bad-key`, `node.bad-certificate`, `config.other-node`.
        StartError: `app.no-folder`.
        StoreError: `catalogue.damaged`, `store.disk-full`.
    """
    _check_enrolment(KeyFiles(paths.keys))
    own = certificate_code(own_certificate(KeyFiles(paths.keys)))
    if own != config.division:
        raise ConfigError(
            "config.other-node",
            N_(
                "{file} is for {code}, but this node was enrolled as {own}. Set node.code to {own}, or enrol the"
                " node again."
            ),
            file=str(paths.config),
            code=config.division,
            own=own,
        )
    if is_disk_full(paths.root):
        Reserve(paths).give_up()
    _make_folders(paths)
    for folder in (paths.spool, paths.trusted, paths.blobs, paths.torrents, paths.resume):
        remove_unfinished(folder)
    check_database(paths.database)


def _check_enrolment(files: KeyFiles) -> None:
    readers: tuple[tuple[Path, Callable[[bytes], object]], ...] = (
        (files.key, load_private_key),
        (files.chain, load_chain),
        (files.anchor, load_chain),
    )
    for file, read in readers:
        try:
            read(file.read_bytes())
        except FileNotFoundError:
            raise not_enrolled() from None
        except EnrolmentError as error:
            raise ConfigError(
                error.code,
                N_("{file} is damaged. Restore it from a backup, or enrol the node again."),
                file=str(file),
            ) from error


def _make_folders(paths: DataPaths) -> None:
    try:
        for folder in (
            paths.spool,
            paths.trusted,
            paths.blobs,
            paths.torrents,
            paths.resume,
            paths.store,
            paths.library,
            paths.incoming,
            paths.media,
        ):
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            "app.no-folder",
            N_("{folder} can't be made: {reason}. Check the disk and its permissions."),
            folder=str(error.filename),
            reason=error.strerror or str(error),
        ) from error
