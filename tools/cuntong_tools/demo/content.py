"""Content that the demonstration makes for itself: pages to read, pictures, tunes, and names that are hard.

The same seed gives the same folder. The sentences are put together from a small vocabulary of our own, so
the folder may be given to anybody.
"""

from __future__ import annotations

import html
import io
import json
import math
import random
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

from .drawing import SEASONS, draw_paper_cut, draw_terraces

DEFAULT_BYTES = 6_000_000
DEFAULT_SEED = 20_261_122
LONGEST_NAME_BYTES = 255
"""What Linux file systems allow for one name."""
SOUND_SHARE = 0.4
"""Part of the folder that is sound."""
FRAMES_PER_S = 22_050

_WHEN = (
    "清明前后", "谷雨那天", "芒种时节", "小暑过后", "立秋以后", "白露清晨", "霜降之前", "冬至夜里", "腊月二十三", "正月初六",
    "赶集的日子", "雨停的下午", "农闲的晚上", "天刚亮", "放学以后", "晒谷的中午", "第一场雪落下", "桂花开的时候",
)  # fmt: skip
_WHERE = (
    "村口的老槐树下", "阅览室的长桌边", "晒谷场上", "水渠旁", "祠堂门前", "半山腰的梯田里", "渡口", "小学的操场", "合作社的仓库",
    "戏台后面", "茶园的小路上", "新修的桥头", "放映员的三轮车旁", "河湾的苇丛边", "石磨房里", "卫生室的廊下",
)  # fmt: skip
_WHO = (
    "张老师", "会计李秀英", "放映员老周", "种茶的阿婆", "回乡的大学生", "修收音机的陈师傅", "唱花旦的姑娘", "护林员", "养蜂人",
    "图书管理员小林", "三年级的孩子们", "退休的木匠", "赤脚走过田埂的兄弟俩", "村医王大夫", "织布的二姐", "画年画的刘爷爷", "驻村的农技员",
)  # fmt: skip
_DEED = (
    "翻开一本讲节气的书", "把稻种泡进温水里", "教大家认识星座", "修好了那台旧放映机", "把药草一味一味写在纸上", "唱起了祖母教的山歌",
    "量了量渠里的水深", "给果树刷上白灰", "剪出一对并蒂的莲花", "把账目抄在墙报上", "讲了半夜的故事", "试着用新的法子育苗", "把老戏本誊清了一遍",
    "给蜂箱换了朝向", "沿着河岸数候鸟", "把晾好的竹篾编成筐", "读完了信又念给邻居听", "记下了每一天的雨量",
)  # fmt: skip
_SO = (
    "大家听得入了神", "不知不觉月亮已经上来", "第二年的收成果然好了些", "孩子们都说还要再来", "连路过的货郎也停下了担子", "这件事就这样传开了",
    "书页里还夹着那片银杏叶", "水顺着新渠一直流到坡下", "老人点点头，没有说话", "屋檐下的燕子又添了一窝", "笔记本已经写满三册", "锣鼓声隔着山也听得见",
    "灯一直亮到后半夜", "谁都舍不得先走", "从此每逢雨天都有人来借书", "新芽在第七天冒了出来",
)  # fmt: skip
_SAYING = (
    "种田看天，读书看灯。", "一处修渠，十处有水。", "戏是唱给人听的，理是留给人想的。", "好种出好苗，好书出好话。", "人多不怕路远，灯亮不怕夜长。",
    "一人识字，全家明白。", "水要引，书要传。", "今年的账，明年的法。", "山歌不断，路就不断。", "勤记一笔，少问三人。",
)  # fmt: skip
_LOOK = (
    "天色像洗过一样", "风里有新草的气味", "远处的山一层淡过一层", "云影慢慢移过田垄", "檐下的水还在滴", "炊烟直直地升上去", "田里的水照着半个天",
    "蝉声一阵紧过一阵", "霜白得像撒了盐", "稻穗压弯了田埂边的草", "江面上只有一条小船", "院子里晒满了辣椒和玉米",
)  # fmt: skip
_TOPIC = (
    "节气", "稻作", "茶园", "山歌", "皮影", "年画", "草药", "养蜂", "水利", "观星", "木工", "候鸟", "酿造", "刺绣", "地方戏", "识字", "果树", "防灾",
)  # fmt: skip
_SHELF = ("农事", "戏曲", "故事", "手艺", "健康", "科普")

_PENTATONIC_HZ = (261.63, 293.66, 329.63, 392.00, 440.00, 523.25, 587.33, 659.26)
"""Gong, shang, jue, zhi, yu, and on into the next octave."""
_TUNES = {
    "春耕小调": ((4, 1), (4, 1), (5, 2), (4, 1), (3, 1), (2, 2), (3, 1), (4, 1), (3, 1), (2, 1), (1, 2), (0, 2)),
    "渡口": ((0, 2), (1, 1), (2, 1), (4, 3), (3, 1), (2, 2), (1, 1), (2, 1), (3, 2), (5, 4)),
    "丰收锣鼓": ((5, 1), (5, 1), (7, 1), (5, 1), (6, 2), (4, 2), (5, 1), (4, 1), (3, 1), (2, 1), (3, 4)),
}  # fmt: skip
"""Of each tune: (place in the scale, beats)."""
_BEAT_FRAMES = FRAMES_PER_S * 3 // 8

_NOTICE = """放映通知

本周六晚七点半，在晒谷场放映戏曲影片两部。
遇雨改在小学礼堂，请互相转告，自带板凳。

文化服务站
"""
_CORRECTED = "。（此句已订正）"


def make_content(
    folder: Path, *, target_bytes: int = DEFAULT_BYTES, seed: int = DEFAULT_SEED
) -> Path:
    """Fill a folder with pages, pictures and tunes.

    Among them are a name of 255 bytes, an empty folder, an empty file, and two files with equal content.

    Args:
        folder: Created; must not hold anything yet.
        target_bytes: About how much; text fills up what pictures and sound leave.
        seed: Equal seeds give equal folders.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder isn't empty.
        OSError: It can't be written; what was written stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(folder)
    randomness = random.Random(seed)  # noqa: S311 - text and drawings, no secret.
    _write(folder / "通知" / "放映通知.txt", _NOTICE.encode())
    _write(folder / "通知" / "存档" / "放映通知.txt", _NOTICE.encode())
    _write(folder / "通知" / "留言簿.txt", b"")
    _write(folder / "故事" / _longest_name(), _story("名字最长的一篇", randomness).encode())
    (folder / "待整理").mkdir()
    _draw(folder / "图画", target_bytes, randomness)
    _play(folder / "声音", int(target_bytes * SOUND_SHARE))
    left_bytes = target_bytes - folder_size(folder)
    for path, text in _pages(randomness):
        data = text.encode()
        _write(folder / path, data)
        left_bytes -= len(data)
        if left_bytes <= 0:
            return folder
    raise AssertionError("pages never end")


def folder_size(folder: Path) -> int:
    """Bytes in all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def change_one_file(folder: Path) -> Path:
    """Change one sentence of one file, as an editor would who found a mistake.

    Works on any folder: a file with Chinese text is preferred; JSON and HTML stay what they are. Where there is
    none, a line break is put at the end of the first file that isn't empty.

    Returns:
        The changed file.

    Raises:
        FileNotFoundError: No file has any content.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    if not files:
        raise FileNotFoundError(folder)
    readable = [path for path in files if path.suffix in {".json", ".txt", ".html", ".md"}]
    # From the middle on: a change far from the start of a pack is the harder case.
    half = len(readable) // 2
    for path in readable[half:] + readable[:half]:
        text = path.read_bytes().decode("utf-8", errors="replace")
        stops = [at for at, letter in enumerate(text) if letter == "。"]
        if stops and "\ufffd" not in text:
            at = stops[len(stops) // 2]
            path.write_bytes((text[:at] + _CORRECTED + text[at + 1 :]).encode())
            return path
    with files[0].open("ab") as file:
        file.write(b"\n")
    return files[0]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _longest_name() -> str:
    words = "山高水长书声不断灯火可亲"
    suffix = "ab.txt"
    letters = (LONGEST_NAME_BYTES - len(suffix)) // len("山".encode())
    return (words * letters)[:letters] + suffix


# Text


def _sentence(randomness: random.Random) -> str:
    pick = randomness.choice
    shape = randomness.randrange(5)
    if shape == 0:
        return f"{pick(_WHEN)}，{pick(_WHO)}在{pick(_WHERE)}{pick(_DEED)}，{pick(_SO)}。"
    if shape == 1:
        return f"{pick(_LOOK)}，{pick(_WHO)}{pick(_DEED)}。"
    if shape == 2:
        return f"{pick(_WHERE)}，{pick(_LOOK)}；{pick(_SO)}。"
    if shape == 3:
        return f"{pick(_WHO)}说：“{pick(_SAYING)}”{pick(_SO)}。"
    return f"{pick(_WHEN)}，{pick(_LOOK)}，{pick(_WHO)}和{pick(_WHO)}一道{pick(_DEED)}。"


def _paragraph(randomness: random.Random) -> str:
    return "".join(_sentence(randomness) for _ in range(randomness.randint(3, 8)))


def _story(title: str, randomness: random.Random) -> str:
    paragraphs = [_paragraph(randomness) for _ in range(randomness.randint(8, 40))]
    return "\n\n".join([title, *(f"　　{text}" for text in paragraphs)]) + "\n"


def _cards(topic: str, randomness: random.Random) -> str:
    cards = [
        {
            "编号": number,
            "类别": topic,
            "标题": f"{randomness.choice(_WHEN)}的{topic}",
            "正文": [_sentence(randomness) for _ in range(randomness.randint(2, 6))],
            "谚语": randomness.choice(_SAYING),
        }
        for number in range(1, randomness.randint(20, 60))
    ]
    return json.dumps(cards, ensure_ascii=False, indent=2) + "\n"


def _web_page(title: str, picture: str, randomness: random.Random) -> str:
    paragraphs = "\n".join(
        f"<p>{html.escape(_paragraph(randomness))}</p>" for _ in range(randomness.randint(6, 20))
    )
    return (
        f'<!DOCTYPE html>\n<html lang="zh-Hans">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body>\n<h1>{title}</h1>\n<img src="../图画/{picture}" alt="{title}" width="800">\n{paragraphs}\n</body>\n</html>\n'
    )


def _pages(randomness: random.Random) -> Iterator[tuple[Path, str]]:
    """Pages without end: stories, cards and web pages in turn."""
    pictures = [f"梯田·{season}.png" for season in SEASONS]
    number = 0
    while True:
        number += 1
        shelf = _SHELF[number % len(_SHELF)]
        topic = _TOPIC[number % len(_TOPIC)]
        title = f"{topic}·第{number:03}篇"
        yield Path(shelf) / f"{title}.txt", _story(title, randomness)
        if number % 3 == 0:
            yield Path("卡片") / f"{topic}{number:03}.json", _cards(topic, randomness)
        if number % 4 == 0:
            page = _web_page(title, randomness.choice(pictures), randomness)
            yield Path("网页") / f"{title}.html", page


# Pictures and sound


def _draw(folder: Path, target_bytes: int, randomness: random.Random) -> None:
    """Four terraced landscapes and three paper-cuts; smaller ones in a smaller folder."""
    scale = min(1.0, math.sqrt(target_bytes / DEFAULT_BYTES))
    for season in SEASONS:
        picture = draw_terraces(season, int(1920 * scale), int(1200 * scale), randomness)
        _write(folder / f"梯田·{season}.png", picture)
    for name in ("连年有余", "喜鹊登梅", "五谷丰登"):
        _write(folder / f"剪纸·{name}.png", draw_paper_cut(int(1000 * scale) // 2 * 2, randomness))


def _play(folder: Path, total_bytes: int) -> None:
    """Play each tune over and over until it has its share of the bytes."""
    frames = total_bytes // 2 // len(_TUNES)
    strings = [_pluck(pitch_hz) for pitch_hz in _PENTATONIC_HZ]
    for name, tune in _TUNES.items():
        samples = array("h", bytes(2 * frames))
        start = turn = 0
        while start < frames:
            place, beats = tune[turn % len(tune)]
            # Every other time round it moves through the scale, so that no two rounds are equal.
            place = (place + turn // len(tune) * 2) % len(strings)
            for at, value in enumerate(strings[place][: frames - start], start):
                samples[at] += value
            start += beats * _BEAT_FRAMES
            turn += 1
        output = io.BytesIO()
        with wave.open(output, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(FRAMES_PER_S)
            sound.writeframes(_little_endian(samples))
        _write(folder / f"{name}.wav", output.getvalue())


def _pluck(pitch_hz: float) -> array[int]:
    """One second of a plucked string: harmonics that die away, the high ones first."""
    samples = array("h")
    turn = math.tau * pitch_hz / FRAMES_PER_S
    for frame in range(FRAMES_PER_S):
        fade = math.exp(-4.5 * frame / FRAMES_PER_S)
        value = sum(
            fade**harmonic * math.sin(turn * harmonic * frame) / harmonic
            for harmonic in (1, 2, 3, 4)
        )
        samples.append(round(5_000 * value))
    return samples


def _little_endian(samples: array[int]) -> bytes:
    """WAV wants little-endian, whatever the machine."""
    copy = array("h", samples)
    if memoryview(array("H", [1])).cast("B")[0] == 0:
        copy.byteswap()
    return copy.tobytes()
