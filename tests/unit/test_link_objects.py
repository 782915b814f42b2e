"""Objects on their way: packing, unpacking without trust, and what is kept of interrupted transfers."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.link import parts as parts_module
from cuntong_daemon.link.backoff import MAX_S, Backoff
from cuntong_daemon.link.parts import Parts
from cuntong_protocol.link.errors import LinkError
from cuntong_protocol.link.messages import Encoding, ObjectHead
from cuntong_protocol.link.objects import Encoded, decode_object, encode_object


def head_of(encoded: Encoded) -> ObjectHead:
    return ObjectHead(
        1,
        encoded.size,
        encoded.sha256,
        encoded.encoding,
        len(encoded.data),
        encoded.form,
        0,
        b"",
    )


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.booleans())
def test_every_object_comes_back_whole(data: bytes, other: bytes, is_alike: bool) -> None:
    base = (data[: len(data) // 2] + other) if is_alike else None
    encoded = encode_object(data, base)
    assert len(encoded.data) <= len(data)
    assert decode_object(head_of(encoded), encoded.data, max_bytes=2000, base=base) == data
    assert encode_object(data, base) == encoded


def test_small_change_against_the_version_before_costs_little() -> None:
    source = random.Random(1)  # Repeatable, not secret.
    before = b"".join(source.randbytes(32) for _ in range(3000))
    after = before[:50_000] + b"one more bundle" + before[50_000:]
    encoded = encode_object(after, before)
    assert encoded.encoding is Encoding.PATCH
    assert len(encoded.data) < 400
    assert decode_object(head_of(encoded), encoded.data, max_bytes=100_000, base=before) == after


def test_large_object_is_packed_at_a_lower_level() -> None:
    data = b"0123456789" * 500_000
    encoded = encode_object(data)
    assert encoded.encoding is Encoding.ZSTD
    assert decode_object(head_of(encoded), encoded.data, max_bytes=len(data), base=None) == data


@pytest.mark.parametrize(
    "spoil", ["flip", "cut", "grow", "size", "limit", "no-size", "no-zstd", "two"]
)
def test_object_that_was_spoilt_is_refused(spoil: str) -> None:
    data = b"abc" * 1000
    encoded = encode_object(data)
    packed, head, limit = encoded.data, head_of(encoded), 3000
    match spoil:
        case "flip":
            packed = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
        case "cut":
            packed = packed[:-1]
        case "grow":
            packed += b"\0"
        case "size":
            head = msgspec.structs.replace(head, size=2999)
        case "limit":
            limit = 2999
        case "no-size":
            packed = zstandard.ZstdCompressor(write_content_size=False).compress(data)
        case "no-zstd":
            packed = b"\xff" * 20
        case "two":
            packed += zstandard.ZstdCompressor().compress(b"x")
    head = msgspec.structs.replace(
        head, encoded_size=len(packed) if spoil != "cut" else len(packed) + 1
    )
    with pytest.raises(LinkError) as caught:
        decode_object(head, packed, max_bytes=limit, base=None)
    assert caught.value.code == "link.bad-object"


def test_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(30_000_000))
    head = ObjectHead(1, 3000, bytes(32), Encoding.ZSTD, len(bomb), b"", 0, b"")
    with pytest.raises(LinkError):
        decode_object(head, bomb, max_bytes=3000, base=None)


HEAD = head_of(encode_object(os.urandom(1000)))


async def test_part_survives_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / ".part"
    parts = Parts(folder)
    part = await parts.claim("blobs/a", b"")
    assert part is not None
    assert await parts.claim("blobs/a", b"") is None
    await part.write(HEAD, 0, b"0123456789")
    await part.write(HEAD, 10, b"abcdefghij")
    await part.write(HEAD, 15, b"XYZ")
    parts.release("blobs/a", b"", part)

    again = Parts(folder)
    part = await again.claim("blobs/a", b"")
    assert part is not None
    assert (part.form, part.length) == (HEAD.form, 18)
    assert await part.read(18) == b"0123456789abcdeXYZ"
    await part.drop()
    again.release("blobs/a", b"", part)
    assert not any(os.scandir(folder))
    part = await again.claim("blobs/a", b"")
    assert part is not None
    assert part.length == 0


async def test_part_that_a_power_cut_spoilt_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"\0\0\0")
    (tmp_path / "b.part").write_bytes(b"\0\0\0\x05hello")
    (tmp_path / "c.part").write_bytes(b"\xff\xff\xff\xff" + bytes(100))
    newer = msgspec.msgpack.encode(
        parts_module.PartHeader(2, "p", b"", 1, b"", Encoding.PLAIN, 1, b"")
    )
    (tmp_path / "d.part").write_bytes(len(newer).to_bytes(4, "big") + newer + b"x")
    await Parts(tmp_path).claim("blobs/a", b"")
    assert not any(os.scandir(tmp_path))


async def test_only_the_newest_parts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "MAX_PARTS", 3)
    parts = Parts(tmp_path)
    for number in range(5):
        part = await parts.claim(f"blobs/{number}", b"")
        assert part is not None
        await part.write(HEAD, 0, b"x")
        os.utime(part._file, (number, number))
    again = Parts(tmp_path)
    kept = [(await again.claim(f"blobs/{number}", b"")).length for number in range(5)]
    assert kept == [0, 0, 1, 1, 1]


async def test_part_on_a_full_disk_is_given_up(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "file" / "below")
    (tmp_path / "file").touch()
    part = await parts.claim("blobs/a", b"")
    assert part is not None
    with pytest.raises(OSError):
        await part.write(HEAD, 0, b"x")
    assert part.length == 0


def test_backoff_doubles_with_jitter_and_never_exceeds_its_end() -> None:
    backoff = Backoff(random.Random(1))  # Repeatable, not secret.
    assert backoff.next_try_at < 0
    delays = []
    for _ in range(12):
        backoff.failed(0.0)
        delays.append(backoff.next_try_at)
    for number, delay in enumerate(delays):
        whole = min(MAX_S, 2.0 * 2**number)
        assert whole / 2 <= delay <= whole
    backoff.ended(0.0, 10.0)
    assert backoff.next_try_at >= MAX_S / 2
    backoff.ended(0.0, 400.0)
    assert backoff.next_try_at <= 2.0
    backoff.failed(0.0, at_once_longest=True)
    assert backoff.next_try_at >= MAX_S / 2
