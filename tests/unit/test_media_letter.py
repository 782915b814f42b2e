"""The letter and labels on a volume: what they say, that they fit the paper, and that titles stay text."""

from __future__ import annotations

import re
import shutil
import subprocess
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from cuntong_protocol.media.papers import Volume, VolumeBundle
from cuntong_tools import qr
from cuntong_tools.media.letter import (
    FIRST_PAGE_BUNDLES,
    MAX_LISTED,
    Letter,
    letter_html,
    readme_text,
    write_letter,
)

GUANGDONG = "440000000000"
VILLAGE = "441900003005"
LONG = "春节戏曲晚会：广东粤剧院二〇二七年新春团拜演出全本实况录像（高清）"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def letter(size: int = 3, title: str = LONG, **changes: object) -> Letter:
    """A volume of so many bundles, the last of which goes on elsewhere."""
    bundles = tuple(
        VolumeBundle(
            id=f"{GUANGDONG}/202611/bundle-{number}",
            revision=1 + number % 2,
            infohash=sha256(b"%d" % number).digest(),
            bytes=70_000_000,
            is_whole=number != size - 1,
        )
        for number in range(size)
    )
    volume = Volume(
        serial="abcdefghij",
        number=2,
        count=5,
        made_at=1_795_017_600,
        by=GUANGDONG,
        network=bytes(32),
        places=(VILLAGE,),
        bundles=bundles,
    )
    return Letter(
        msgspec.structs.replace(volume, **changes),
        "广东省公共文化中心",
        {bundle.id: f"{title} {number}" for number, bundle in enumerate(bundles)},
        {VILLAGE: "水乡镇第一村"},
    )


class Page(HTMLParser):
    """Collects elements, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}
        if tag not in {"meta", "br", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "title"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_letter_tells_whose_what_and_how_in_both_languages() -> None:
    page = Page(letter_html(letter()))
    assert page.open == []
    for said in (
        "第 2 卷，共 5 卷",
        "Volume 2 of 5",
        "441900003005 水乡镇第一村",
        "440000000000 广东省公共文化中心",
        "cuntong-abcdefghij-2",
        # Midnight in China is the day before in Greenwich.
        "2026-11-19",
        "3 个资源包，210 MB",
        "3 bundles, 210 MB",
        f"{LONG} 0",
        f"{GUANGDONG}/202611/bundle-1 r2",
        "70.0 MB",
        "完整 whole",
        "其余在别的卷上 more on another volume",
        "cuntong media import",
        "cuntong media eject",
        "cuntong media report --qr receipt.svg",
        "441900003005.receipt",
        "盘坏了怎么办",
        "When it is damaged",
        "寄回地址 Return to",
    ):
        assert said in page.text, said


def test_readme_is_short_and_every_editor_shows_its_lines() -> None:
    text = readme_text(letter())
    assert text.count("\r\n") == text.count("\n") == text.count("\r") <= 25
    assert max(map(len, text.splitlines())) <= 120
    for said in (
        "2 / 5",
        "cuntong-abcdefghij-2",
        VILLAGE,
        GUANGDONG,
        "2026-11-19",
        "LETTER.html",
        "导入",
        "import",
    ):
        assert said in text, said  # fmt: skip


def test_same_letter_gives_the_same_bytes_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for zone, language in (("Asia/Shanghai", "zh_CN"), ("America/New_York", "en")):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LANGUAGE", language)
        write_letter(tmp_path, letter())
        assert {path.name for path in tmp_path.iterdir()} == {"README.txt", "LETTER.html"}
        found.append([(tmp_path / name).read_bytes() for name in ("README.txt", "LETTER.html")])
    assert found[0] == found[1]
    assert found[0][0].decode() == readme_text(letter())


def test_titles_and_names_from_bundles_stay_text() -> None:
    evil = "<script>alert(1)</script>\"'&amp;<img src=x onerror=y>$name \x1b[2J\u202egpj.exe"
    made = letter(2, evil)
    made = Letter(made.volume, evil, made.titles, {VILLAGE: evil})
    html = letter_html(made)
    page = Page(html)
    assert not page.tags & {"script", "img", "a", "link", "iframe", "object", "form", "input"}
    assert not page.attributes & {"src", "href", "onerror", "onclick"}
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"https?:", html)
    assert "<script>alert(1)</script>\"'&amp;<img src=x onerror=y>$name ?[2J?gpj.exe" in page.text
    for text in (html, readme_text(made)):
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_volume_for_anybody_and_with_the_catalogue_alone() -> None:
    page = Page(letter_html(letter(0, places=()))).text
    for said in ("任何村通节点", "any node of Cuntong", "只有目录，没有资源包", "*.receipt"):
        assert said in page, said
    assert "资源包 Bundle" not in page


def test_bundle_without_a_title_is_called_by_its_id() -> None:
    made = letter(1)
    page = Page(letter_html(Letter(made.volume, "", {}, {}))).text
    assert f"1 {GUANGDONG}/202611/bundle-0" in page
    assert "1 bundle, 70.0 MB" in page


def test_many_places_are_counted() -> None:
    codes = tuple(f"44190000{number:04d}" for number in range(256))
    page = Page(letter_html(letter(places=codes))).text
    assert "441900000002" in page
    assert "441900000003" not in page
    assert "+ 253" in page


def test_long_list_follows_the_labels_and_has_an_end() -> None:
    short = letter_html(letter(FIRST_PAGE_BUNDLES))
    assert short.count('class="page"') == 2
    page = Page(letter_html(letter(FIRST_PAGE_BUNDLES + 1))).text
    assert "清单从第 3 页开始。 The list begins on page 3." in page
    assert "第 2 卷的内容 Contents of volume 2" in page
    longest = letter_html(letter(MAX_LISTED + 100, "W" * 190))
    assert "另有 100 个资源包。" in longest
    assert len(longest.encode()) < 500_000


@pytest.mark.parametrize("made_at", [0, 2**40, 1_795_000_000])
def test_exporter_with_a_mad_clock_writes_a_letter_all_the_same(made_at: int) -> None:
    assert "cuntong-abcdefghij-2" in letter_html(letter(made_at=made_at))


def test_without_segno_the_letter_has_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with_code = letter_html(letter())
    monkeypatch.setitem(__import__("sys").modules, "segno", None)
    assert qr.make_qr("x") is None
    without = letter_html(letter())
    assert (with_code.count("<svg"), without.count("<svg")) == (4, 0)
    assert Page(without).open == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium, which prints the letter, isn't installed")
@pytest.mark.parametrize(
    ("made", "pages"),
    [
        (letter(0), range(2, 3)),
        (letter(FIRST_PAGE_BUNDLES, LONG * 5), range(2, 3)),
        (
            Letter(
                letter(6, "W" * 190, number=9998, count=9999,
                       places=tuple(f"44190000{n:04d}" for n in range(256))).volume,
                "W" * 190, {}, {f"44190000{n:04d}": "水乡村" * 60 for n in range(256)},
            ),
            range(2, 3),
        ),
        (letter(60, LONG * 5), range(5, 7)),
    ],
    ids=["catalogue", "six", "widest", "sixty"],
)  # fmt: skip
def test_letter_and_labels_take_one_page_each(tmp_path: Path, made: Letter, pages: range) -> None:
    write_letter(tmp_path, made)
    printed = tmp_path / "letter.pdf"
    subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={printed}",
            (tmp_path / "LETTER.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) in pages
