"""Writing a payload: it is there whole, or nothing is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cuntong_daemon.files import sync_folder
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .scan import BuildError, show_path


def check_output(folder: Path, output: Path, slug: str) -> None:
    """Check where a payload shall go.

    Raises:
        BuildError: `build.output-inside`, `build.exists`.
    """
    if output.resolve().is_relative_to(folder.resolve()):
        raise BuildError(
            "build.output-inside",
            N_("{output} lies inside the folder that is to be published: choose another place."),
            output=show_path(output),
            fault=Fault.USAGE,
        )
    if (output / slug).exists():
        raise BuildError(
            "build.exists",
            N_("{path} is there already: remove it first."),
            path=show_path(output / slug),
            fault=Fault.USAGE,
        )


@contextlib.contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """A folder beside the result, gone afterwards unless it was renamed."""
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=output))
        try:
            temporary.chmod(0o755)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    finally:
        # Not if the result lies in it.
        if is_new:
            with contextlib.suppress(OSError):
                output.rmdir()


@contextlib.contextmanager
def write_errors(output: Path) -> Iterator[None]:
    """Say in one sentence what the system said while the payload was written.

    Raises:
        BuildError: `build.disk-full`, `build.write-failed`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise BuildError(
                "build.disk-full",
                N_("The disk that holds {output} is full: make room and try again."),
                output=show_path(output),
                fault=Fault.SYSTEM,
            ) from error
        raise BuildError(
            "build.write-failed",
            N_("The bundle can't be written to {output}: {detail}."),
            output=show_path(output),
            detail=os.strerror(error.errno or errno.EIO),
            fault=Fault.SYSTEM,
        ) from error


def sync_tree(folder: Path) -> None:
    """Make everything below `folder` survive a power cut."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
