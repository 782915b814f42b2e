"""The check of the translations finds what would show English or nonsense to a Chinese reader."""

from __future__ import annotations

import gettext
import io
from pathlib import Path

import pytest

from tests.support import translations

SOURCE = """
def refuse(name):
    raise BundleError("bundle.bad", N_("{name} is bad."), name=_("one", other=N_("two")))

print(ngettext("{count} node", "{count} nodes", 3), _("split "
      "in two"))
"""
PO = """
msgid "{name} is bad."
msgstr "{name} 有错。"

msgid "one"
msgstr "一"

msgid "two"
msgstr "二"

msgid "{count} node"
msgid_plural "{count} nodes"
msgstr[0] "{count} 个节点"

msgid "split in two"
msgstr "分成两段"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in translations.SOURCES:
        (tmp_path / folder).mkdir()
    (tmp_path / "daemon" / "words.py").write_text(SOURCE, "utf-8")
    return tmp_path


@pytest.fixture
def locale_dir(root: Path) -> Path:
    folder = root / "locale"
    po, _ = translations.files_of("zh_CN", folder)
    po.parent.mkdir(parents=True)
    po.write_text(PO, "utf-8")
    assert translations.update(root, folder) == []
    return folder


def edit(locale_dir: Path, old: str, new: str) -> None:
    po, mo = translations.files_of("zh_CN", locale_dir)
    text = po.read_text("utf-8")
    assert old in text
    po.write_text(text.replace(old, new), "utf-8")
    mo.write_bytes(translations.compile_mo(po.read_bytes(), "zh_CN"))


def test_compiled_catalogue_is_what_gettext_reads(locale_dir: Path) -> None:
    _, mo = translations.files_of("zh_CN", locale_dir)
    found = gettext.GNUTranslations(io.BytesIO(mo.read_bytes()))
    assert found.gettext("split in two") == "分成两段"
    assert found.ngettext("{count} node", "{count} nodes", 3) == "{count} 个节点"


def test_second_update_changes_no_byte(root: Path, locale_dir: Path) -> None:
    before = [path.read_bytes() for path in translations.files_of("zh_CN", locale_dir)]
    assert translations.update(root, locale_dir) == []
    assert [path.read_bytes() for path in translations.files_of("zh_CN", locale_dir)] == before
    assert b"Date" not in before[0]
    assert b"Babel" not in before[0]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('msgstr "一"', 'msgstr ""', "not translated: 'one'"),
        ('msgid "one"\nmsgstr "一"\n', "", "missing: 'one'"),
        ("{name} 有错", "{nam} 有错", "places differ: '{name} is bad.'"),
        ('"{count} 个节点"', '"几个节点"', "places differ: '{count} node'"),
        ('msgid "two"', '#, fuzzy\nmsgid "two"', "fuzzy: 'two'"),
        (
            'msgid "two"',
            'msgid "gone"\nmsgstr "无"\n\nmsgid "two"',
            "nobody says this any more: 'gone'",
        ),
        ('msgid "two"', '#~ msgid "old"\n#~ msgstr "旧"\n\nmsgid "two"', "obsolete: 'old'"),
    ],
)
def test_check_names_what_is_wrong(
    root: Path, locale_dir: Path, old: str, new: str, fault: str
) -> None:
    edit(locale_dir, old, new)
    assert translations.check(root, locale_dir) == [f"zh_CN: {fault}"]


def test_check_finds_a_compiled_catalogue_of_yesterday(root: Path, locale_dir: Path) -> None:
    po, mo = translations.files_of("zh_CN", locale_dir)
    po.write_text(po.read_text("utf-8").replace("有错", "不对"), "utf-8")
    assert [line.split(";")[0] for line in translations.check(root, locale_dir)] == [
        "zh_CN: cuntong.mo is not what cuntong.po compiles to"
    ]
    mo.unlink()
    assert len(translations.check(root, locale_dir)) == 1
    po.unlink()
    assert translations.check(root, locale_dir)[0].startswith("zh_CN: cuntong.po is missing")


def test_check_finds_sentences_that_no_translator_will_see(root: Path, locale_dir: Path) -> None:
    (root / "tools" / "more.py").write_text(
        'raise XError("area.bad", "This is not marked.")\nprint(_(word), _(f"{word}!"))\nprint(ngettext("a", many, 2))\n',
        "utf-8",
    )
    assert sorted(translations.check(root, locale_dir)) == [
        "tools/more.py:1: the sentence isn't marked with N_().",
        "tools/more.py:2: _() needs plain string literals.",
        "tools/more.py:3: ngettext() needs plain string literals.",
    ]


def test_update_drops_what_nobody_says_and_keeps_the_rest(root: Path, locale_dir: Path) -> None:
    (root / "daemon" / "words.py").write_text('print(_("one"), _("three"))\n', "utf-8")
    assert translations.update(root, locale_dir) == ["zh_CN: not translated: 'three'"]
    po = translations.files_of("zh_CN", locale_dir)[0].read_text("utf-8")
    assert "一" in po
    assert "分成两段" not in po


def test_wrong_arguments_are_a_usage_error() -> None:
    assert translations.main([]) == 64
