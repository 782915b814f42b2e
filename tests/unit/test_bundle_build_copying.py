"""Files that are stored as they are, copied while the folder is hashed."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cuntong_protocol.bundle.errors import BundleError
from cuntong_protocol.bundle.packing import PACKED_BELOW_BYTES
from cuntong_tools.publish import copying, hashing
from cuntong_tools.publish.build import BuildProgress
from cuntong_tools.publish.copying import Copier
from cuntong_tools.publish.scan import SourceFile, scan_folder
from tests.support.bundles import (
    as_predecessor,
    build,
    noise,
    poetry,
    read_folder,
    read_payload,
    write_folder,
)

FILM = noise(1, PACKED_BELOW_BYTES + 1_000_001)
OTHER_FILM = noise(2, len(FILM))


@pytest.fixture
def no_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose files share no blocks."""
    monkeypatch.setattr(copying, "clone", lambda _source, _target: False)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was given to the copying thread."""
    paths: list[str] = []
    offer = Copier.offer

    def note(copier: Copier, file: SourceFile) -> None:
        paths.append(file.path)
        offer(copier, file)

    monkeypatch.setattr(Copier, "offer", note)
    return paths


def _no_copying_thread() -> bool:
    return not any(thread.name.startswith("copy") for thread in threading.enumerate())


@pytest.mark.usefixtures("no_clones")
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8191, 8192, 8193, 40_960, 50_000])
@pytest.mark.parametrize("is_direct", [True, False])
def test_copy_of_any_length_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, is_direct: bool
) -> None:
    monkeypatch.setattr(copying, "STEP_BYTES", 8192)
    monkeypatch.setattr(copying, "DIRECT_FROM_BYTES", 4096)
    files = {"a": noise(1, 8000), "b/c": noise(2, size)}
    scan = scan_folder(write_folder(tmp_path / "in", files))
    with Copier(tmp_path / "out", is_direct=is_direct) as copier:
        for file in scan.files:
            copier.offer(file)
        copier.finish(files, lambda: None)
        assert copier.copied_bytes == 8000 + size
    assert read_folder(tmp_path / "out") == files


def test_film_edited_after_publishing_stays_as_it_was_published(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", {"film.mp4": FILM})
    built = build(source, tmp_path / "out")
    with (source / "film.mp4").open("r+b") as file:
        file.write(b"changed!")
    assert read_payload(built) == {"film.mp4": FILM}


def test_disk_that_takes_only_larger_blocks_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def refuse(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    built = build(write_folder(tmp_path / "in", {"film.mp4": FILM}), tmp_path / "out")
    assert read_payload(built) == {"film.mp4": FILM}


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder that shares no file system with `tmp_path`."""
    memory = Path("/dev/shm")  # noqa: S108  # Another file system is what is wanted.
    if not os.access(memory, os.W_OK):
        pytest.skip("this test's second file system, /dev/shm, isn't there or can't be written to")
    if memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the tests' temporary folder lies in /dev/shm: there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_other_file_system_without_direct_writing_gives_the_same_bundle(
    tmp_path: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        # As a tmpfs before Linux 6.6 does.
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return change(descriptor, command, argument)

    files = {"film.mp4": FILM, "a.txt": b"a"}
    source = write_folder(tmp_path / "in", files)
    with monkeypatch.context() as context:
        context.setattr(fcntl, "fcntl", refuse)
        there = build(source, other_file_system / "out")
    assert read_payload(there) == files
    assert there.descriptor == build(source, tmp_path / "out").descriptor


def test_hashing_that_waits_for_the_copy_gives_the_same_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "in", {**poetry(), "film.mp4": FILM})
    at_ease = build(source, tmp_path / "first")
    monkeypatch.setattr(copying, "LEAD_BYTES", 0)
    for threads in (1, 3):
        waiting = build(source, tmp_path / str(threads), threads=threads)
        assert waiting.descriptor == at_ease.descriptor
        assert read_folder(waiting.payload_dir) == read_folder(at_ease.payload_dir)


@pytest.mark.parametrize("threads", [1, 4])
def test_second_copy_of_a_film_is_never_written(
    tmp_path: Path, offered: list[str], threads: int
) -> None:
    picture = noise(3, 90_000)
    files = {
        "1.mp4": FILM,
        "2.mp4": FILM,
        "3.mp4": OTHER_FILM,
        "a.jpg": picture,
        "b.jpg": picture,
    }
    built = build(write_folder(tmp_path / "in", files), tmp_path / "out", threads=threads)
    assert sorted(offered) == ["1.mp4", "3.mp4", "a.jpg"]
    assert read_payload(built) == files


def test_what_an_earlier_pack_holds_is_not_in_the_payload_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: list[str]
) -> None:
    files = {f"a/b/{n}.jpg": noise(n, 90_000) for n in range(3)}
    source = write_folder(tmp_path / "in", files)
    with monkeypatch.context() as context:
        # As if another version of zstd had made them small.
        context.setattr(hashing, "is_packable", lambda _size, _sample: True)
        first = build(source, tmp_path / "first")
    assert offered == []
    second = build(source, tmp_path / "second", revision=2, predecessor=as_predecessor(first))
    assert sorted(offered) == sorted(files)
    assert read_folder(second.payload_dir) == read_folder(first.payload_dir)
    assert not (second.payload_dir / "files").exists()
    assert second.torrent == first.torrent


@pytest.mark.usefixtures("no_clones")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_file_that_changes_while_it_is_copied_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    # Copied once it is hashed: only the copy can notice.
    source = write_folder(tmp_path / "in", {"a.jpg": noise(1, 99_999)})
    read = copying.read_source

    def change(file: SourceFile, descriptor: int, buffer: memoryview, offset: int) -> None:
        if moment == "after":
            read(file, descriptor, buffer, offset)
        os.truncate(file.disk_path, 99_000)
        if moment == "before":
            read(file, descriptor, buffer, offset)

    monkeypatch.setattr(copying, "read_source", change)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out")
    assert caught.value.code == "build.file-changed"
    assert not (tmp_path / "out").exists()


def test_source_that_cannot_be_read_is_not_called_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "in", {"film.mp4": FILM})

    def fail(_descriptor: int, _buffers: Sequence[memoryview], _offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out")
    assert caught.value.code == "build.unreadable"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_clones")
def test_full_disk_ends_the_hashing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_folder(tmp_path / "in", {f"{n}.bin": FILM + bytes(n) for n in range(6)})
    monkeypatch.setattr(copying, "LEAD_BYTES", 0)
    seen: list[BuildProgress] = []

    def fill(_descriptor: int, _data: memoryview, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(BundleError) as caught:
        build(source, tmp_path / "out", progress=seen.append)
    assert caught.value.code == "build.disk-full"
    assert not (tmp_path / "out").exists()
    hashing_seen = [it for it in seen if it.stage == "hashing"]
    assert hashing_seen[-1].done < 6 * len(FILM)
    assert _no_copying_thread()


@pytest.mark.parametrize("stage", ["hashing", "copying"])
def test_interrupt_while_a_film_is_copied_leaves_nothing(tmp_path: Path, stage: str) -> None:
    source = write_folder(tmp_path / "in", {"1.mp4": FILM, "2.mp4": OTHER_FILM})
    output = tmp_path / "out"
    output.mkdir()

    def interrupt(progress: BuildProgress) -> None:
        if progress.stage == stage and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, output, progress=interrupt)
    assert list(output.iterdir()) == []
    assert _no_copying_thread()


@pytest.mark.usefixtures("no_clones")
def test_stopped_copy_does_not_go_on_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_folder(write_folder(tmp_path / "in", {"a.bin": FILM, "b.bin": b"b"}))
    monkeypatch.setattr(copying, "STEP_BYTES", 1 << 20)
    has_begun, may_go_on = threading.Event(), threading.Event()
    read = copying.read_source

    def wait(file: SourceFile, descriptor: int, buffer: memoryview, offset: int) -> None:
        read(file, descriptor, buffer, offset)
        has_begun.set()
        may_go_on.wait()

    monkeypatch.setattr(copying, "read_source", wait)

    class Stopping(Copier):
        """Lets its thread go on when it is waited for."""

        def offer(self, file: SourceFile) -> None:
            super().offer(file)
            shutdown = self._pool.shutdown

            def go_on() -> None:
                may_go_on.set()
                shutdown()

            monkeypatch.setattr(self._pool, "shutdown", go_on)

    with Stopping(tmp_path / "out", is_direct=True) as copier:
        for file in scan.files:
            copier.offer(file)
        has_begun.wait()
    assert copier.copied_bytes == 1 << 20
    assert not (tmp_path / "out" / "b.bin").exists()
    assert _no_copying_thread()


def test_progress_never_goes_back_and_ends_at_the_whole(tmp_path: Path) -> None:
    first = build(write_folder(tmp_path / "1", poetry()), tmp_path / "first")
    source = write_folder(tmp_path / "2", {**poetry(), "1.mp4": FILM, "2.mp4": OTHER_FILM})
    seen: list[BuildProgress] = []
    build(
        source,
        tmp_path / "out",
        revision=2,
        predecessor=as_predecessor(first),
        progress=seen.append,
    )
    for stage in ("hashing", "packing", "copying"):
        reports = [it for it in seen if it.stage == stage]
        done = [it.done for it in reports]
        shares = [it.done / max(it.total, 1) for it in reports if it.total is not None]
        assert done == sorted(done)
        assert shares == sorted(shares)
        assert reports[-1].done == reports[-1].total
    copied = [it for it in seen if it.stage == "copying"]
    assert copied[0].total is None
    assert copied[-1].done >= 2 * len(FILM)
