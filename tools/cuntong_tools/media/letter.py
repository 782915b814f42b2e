"""What lies on a volume for people: a letter with labels to print, and a short text (SPEC 12.1).

Both are in Chinese and English at once, whatever language the exporter's terminal has: nobody knows which one the reader's has.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path
from string import Template

from cuntong_protocol.media.layout import volume_folder
from cuntong_protocol.media.papers import Volume, VolumeBundle
from cuntong_protocol.texts import Sentence
from cuntong_tools.output import format_bytes
from cuntong_tools.qr import make_qr

README_FILE = "README.txt"
LETTER_FILE = "LETTER.html"

FIRST_PAGE_BUNDLES = 6
"""So many fit on the first page; of more, a list follows the labels."""
MAX_LISTED = 500
"""Bundles in the letter: some 25 pages. The rest is counted."""
MAX_PLACES_SHOWN = 3
LABEL_TITLES = 8
CHINA = timezone(timedelta(hours=8))
"""One country, one time; a constant, so that the same volume has the same letter wherever it is made."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a letter says.

    Attributes:
        volume: It lies on.
        exporter_name: What people call the place that exported.
        titles: Of bundles, by ID.
        place_names: What people call places, by code.
    """

    volume: Volume
    exporter_name: str
    titles: Mapping[str, str]
    place_names: Mapping[str, str]


def write_letter(folder: Path, letter: Letter) -> None:
    """Write `README.txt` and `LETTER.html` into a volume's folder; the same letter gives the same bytes.

    The QR code of the volume's name is left out where segno isn't installed.

    Args:
        folder: Of the volume; it exists.
        letter: What to say.

    Raises:
        OSError: one of them can't be written.
    """
    (folder / README_FILE).write_bytes(readme_text(letter).encode())
    (folder / LETTER_FILE).write_bytes(letter_html(letter).encode())


def readme_text(letter: Letter) -> str:
    """The short text, with the line ends that every editor shows."""
    volume = letter.volume
    contents_zh, contents_en = _contents(volume)
    lines = [
        "村通 Cuntong",
        "",
        f"卷 Volume:  {volume.number} / {volume.count}  {_name(volume)}",
        f"寄自 From:  {_exporter(letter)}",
        f"寄给 To:    {'；'.join(_places(letter))}",
        f"日期 Date:  {_date(volume)}",
        f"内容 Contents: {contents_zh} / {contents_en}",
        "",
        "用浏览器打开 LETTER.html 可以看到清单和说明，也可以打印信和盘标。",
        "导入：在运行村通的电脑上打开终端，键入",
        "    cuntong media import 这张盘的文件夹",
        "盘坏了也照样导入：好的部分会收下，缺的以后补齐。",
        f"然后请把盘和盘上的回执（{_receipt(volume)}）一起寄回寄件人。",
        "",
        "Open LETTER.html in a browser for the list of contents, the instructions, and a letter and labels to print.",
        "To import it, open a terminal on the computer that runs Cuntong and type",
        "    cuntong media import FOLDER-OF-THIS-MEDIUM",
        "Import it even if it is damaged: what is good is taken, the rest comes later.",
        f"Then please send it back to the sender with the receipt ({_receipt(volume)}) on it.",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def letter_html(letter: Letter) -> str:
    """The letter on one page, the labels on the second, and a list of contents where it is longer."""
    volume = letter.volume
    contents_zh, contents_en = _contents(volume)
    is_short = len(volume.bundles) <= FIRST_PAGE_BUNDLES
    if is_short:
        first = _table(letter, volume.bundles, "one") if volume.bundles else ""
        further = ""
    else:
        first = '<p>清单从第 3 页开始。 <span lang="en">The list begins on page 3.</span></p>'
        further = _list_pages(letter)
    template = Template(
        resources.files(__package__).joinpath("letter.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        name=_name(volume),
        number=volume.number,
        count=volume.count,
        place_lines=_lines(_places(letter)),
        to=_escaped("；".join(_places(letter))),
        exporter=_escaped(_exporter(letter)),
        date=_date(volume),
        contents_zh=contents_zh,
        contents_en=contents_en,
        receipt=_escaped(_receipt(volume)),
        qr=_qr_picture(_name(volume)),
        title_lines=_title_lines(letter),
        first_table=first,
        further_pages=further,
    )


def _list_pages(letter: Letter) -> str:
    volume = letter.volume
    rest = len(volume.bundles) - MAX_LISTED
    more = ""
    if rest > 0:
        more = f'<p>另有 {rest} 个资源包。 <span lang="en">And {rest} more.</span></p>'
    heading = f"第 {volume.number} 卷的内容 <span lang='en'>Contents of volume {volume.number}</span> <small>{_name(volume)}</small>"
    table = _table(letter, volume.bundles[:MAX_LISTED], "all")
    return f'<section class="page">\n<h2>{heading}</h2>\n{table}\n{more}</section>'


def _table(letter: Letter, bundles: Sequence[VolumeBundle], kind: str) -> str:
    rows = [
        f'<table class="{kind}"><thead><tr>'
        '<th class="number"></th><th>资源包 <span lang="en">Bundle</span></th>'
        '<th class="size">大小 <span lang="en">Size</span></th><th class="whole"></th></tr></thead>',
        "<tbody>",
    ]
    for number, bundle in enumerate(bundles, start=1):
        whole = "完整 <span lang='en'>whole</span>"
        if not bundle.is_whole:
            whole = "其余在别的卷上<br><span lang='en'>more on another volume</span>"
        title = _escaped(_title(letter, bundle))
        revision = f" r{bundle.revision}" if bundle.revision > 1 else ""
        rows.append(
            f'<tr><td class="number">{number}</td>'
            f'<td><div>{title}</div><div class="id">{_escaped(bundle.id)}{revision}</div></td>'
            f'<td class="size">{format_bytes(bundle.bytes)}</td><td class="whole">{whole}</td></tr>'
        )
    return "\n".join([*rows, "</tbody></table>"])


def _title_lines(letter: Letter) -> str:
    """For the case: as many as it has room for."""
    titles = [_title(letter, bundle) for bundle in letter.volume.bundles]
    if len(titles) > LABEL_TITLES:
        titles[LABEL_TITLES - 1 :] = [f"+ {len(titles) - LABEL_TITLES + 1}"]
    return _lines(titles)


def _contents(volume: Volume) -> tuple[str, str]:
    """In Chinese and in English."""
    count = len(volume.bundles)
    if not count:
        return "只有目录，没有资源包", "the catalogue alone, no bundles"
    size = format_bytes(sum(bundle.bytes for bundle in volume.bundles))
    noun = "bundle" if count == 1 else "bundles"
    return f"{count} 个资源包，{size}", f"{count} {noun}, {size}"


def _places(letter: Letter) -> list[str]:
    """Whom it is for: some of them, and how many more."""
    codes = letter.volume.places
    if not codes:
        return ["任何村通节点 any node of Cuntong"]
    shown = [
        _clean(f"{code} {letter.place_names.get(code, '')}".strip())
        for code in codes[:MAX_PLACES_SHOWN]
    ]
    rest = len(codes) - len(shown)
    if rest:
        shown.append(f"+ {rest}")
    return shown


def _lines(texts: Sequence[str]) -> str:
    """Each on a line of its own, cut where the line ends."""
    return "".join(f'<p class="line">{_escaped(text)}</p>' for text in texts)


def _exporter(letter: Letter) -> str:
    return _clean(f"{letter.volume.by} {letter.exporter_name}".strip())


def _title(letter: Letter, bundle: VolumeBundle) -> str:
    return _clean(letter.titles.get(bundle.id, "") or bundle.id)


def _receipt(volume: Volume) -> str:
    """What the receipt of the place is called."""
    return f"{volume.places[0]}.receipt" if len(volume.places) == 1 else "*.receipt"


def _name(volume: Volume) -> str:
    return volume_folder(volume.serial, volume.number)


def _date(volume: Volume) -> str:
    """The exporter's; a clock that says the impossible says nothing."""
    try:
        return datetime.fromtimestamp(volume.made_at, UTC).astimezone(CHINA).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return "-"


def _qr_picture(text: str) -> str:
    code = make_qr(text)
    return "" if code is None else code.inline_svg()


def _clean(text: str) -> str:
    """Without control and direction characters, which could make a line look like another."""
    return Sentence("text", "{text}", {"text": text}).render()


def _escaped(text: str) -> str:
    return html.escape(_clean(text))
