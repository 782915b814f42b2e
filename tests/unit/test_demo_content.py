"""The content that the demonstration makes: the same every time, and hard where folders are hard."""

from __future__ import annotations

import json
import random
import struct
import wave
import zlib
from pathlib import Path

import pytest

from cuntong_tools.demo.content import (
    LONGEST_NAME_BYTES,
    change_one_file,
    folder_size,
    make_content,
)
from cuntong_tools.demo.drawing import SEASONS, draw_paper_cut, draw_terraces

SMALL_BYTES = 250_000


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_content(tmp_path_factory.mktemp("content") / "资源", target_bytes=SMALL_BYTES)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def unpack_png(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and the rows of a PNG; every chunk's sum is checked."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    assert at == len(data)
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    return width, height, zlib.decompress(chunks[b"IDAT"])


def test_same_seed_gives_same_folder_and_another_seed_another(
    content: Path, tmp_path: Path
) -> None:
    again = make_content(tmp_path / "again", target_bytes=SMALL_BYTES)
    other = make_content(tmp_path / "other", target_bytes=SMALL_BYTES, seed=1)
    assert snapshot(again) == snapshot(content)
    assert snapshot(other) != snapshot(content)


def test_size_is_about_what_was_asked_for(content: Path) -> None:
    assert SMALL_BYTES <= folder_size(content) < SMALL_BYTES * 1.15


def test_hard_cases_are_there(content: Path) -> None:
    paths = list(content.rglob("*"))
    files = [path for path in paths if path.is_file()]
    assert max(len(path.name.encode()) for path in paths) == LONGEST_NAME_BYTES
    assert any(path.is_dir() and not any(path.iterdir()) for path in paths)
    assert any(path.stat().st_size == 0 for path in files)
    assert (content / "通知" / "放映通知.txt").read_bytes() == (
        content / "通知" / "存档" / "放映通知.txt"
    ).read_bytes()
    assert {path.suffix for path in files} == {".txt", ".json", ".html", ".png", ".wav"}


def test_every_kind_of_file_is_what_its_name_says(content: Path) -> None:
    for path in content.rglob("*.json"):
        assert json.loads(path.read_text("utf-8"))[0]["正文"]
    for path in content.rglob("*.png"):
        width, height, rows = unpack_png(path.read_bytes())
        assert len(rows) == height * (width + 1)
    for path in content.rglob("*.wav"):
        with wave.open(str(path)) as sound:
            assert sound.getnframes() > 10_000
            assert any(sound.readframes(10_000))


def test_pictures_are_drawings() -> None:
    seeded = random.Random(1)
    for season in SEASONS:
        width, height, rows = unpack_png(draw_terraces(season, 120, 80, seeded))
        assert (width, height) == (120, 80)
        assert len(set(rows)) > 30
    size, _, rows = unpack_png(draw_paper_cut(100, seeded))
    lines = [rows[at + 1 : at + 1 + size] for at in range(0, len(rows), size + 1)]
    assert lines == lines[::-1]
    assert [line[::-1] for line in lines] == lines
    assert set(rows) == {0, 1, 2}


def test_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError):
        make_content(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_change_touches_one_file_which_stays_readable(tmp_path: Path) -> None:
    folder = make_content(tmp_path / "c", target_bytes=SMALL_BYTES)
    for _ in range(3):
        before = snapshot(folder)
        changed = change_one_file(folder)
        after = snapshot(folder)
        assert [name for name in after if after[name] != before.get(name)] == [
            changed.relative_to(folder).as_posix()
        ]
        assert changed.read_text("utf-8")


def test_change_works_where_nothing_is_chinese_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        change_one_file(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe no text")
    (tmp_path / "b.bin").write_bytes(bytes(range(256)))
    assert change_one_file(tmp_path) == tmp_path / "a.txt"
    assert (tmp_path / "a.txt").read_bytes() == b"\xff\xfe no text\n"


def test_change_keeps_json_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"诗": "关关雎鸠。在河之洲。"}]', "utf-8")
    assert change_one_file(tmp_path).name == "a.json"
    assert "订正" in json.loads((tmp_path / "a.json").read_text("utf-8"))[0]["诗"]
