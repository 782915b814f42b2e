"""The catalogue of translations: `python -m tests.support.translations check|update`.

`update` collects what the program says, brings the `.po` up to date (what was translated stays, what nobody
says any more goes) and compiles the `.mo` beside it. `check` changes nothing and names everything that
would show a reader English, or nonsense, in a Chinese interface.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("daemon", "protocol", "tools", "simulations")
DOMAIN = "cuntong"
CREATION_DATE = datetime(2026, 11, 22, tzinfo=UTC)
LOCALES = ("zh_CN",)
LOCALE_DIR = ROOT / "daemon" / "cuntong_daemon" / "locale"

_KEYWORDS = {"_": 1, "N_": 1, "ngettext": 2}
"""How many arguments of a call are messages."""
_COMPOSED = (ast.JoinedStr, ast.BinOp)
"""What no catalogue can hold. Anything else is fine for `_()`: it shows what N_() marked elsewhere."""
_PLACE = re.compile(r"\{([^{}]*)\}")
_CODE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_UNSTABLE_HEADERS = (
    "Project-Id-Version",
    "POT-Creation-Date",
    "PO-Revision-Date",
    "Last-Translator",
    "Language-Team",
    "Report-Msgid-Bugs-To",
    "Generated-By",
)
_LINE_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Said:
    """One thing the program says: one template, or two for singular and plural."""

    forms: tuple[str, ...]
    place: str


def say(source: str, place: str) -> Iterator[Said | str]:
    """Yield what one module says, and as plain strings the mistakes that hide a sentence.

    Args:
        source: Python text.
        place: The file's name for people, without a line number, so that the `.po` is stable.
    """
    for node in ast.walk(ast.parse(source, place)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        count = _KEYWORDS.get(name)
        if count is not None:
            forms = tuple(_literal(argument) for argument in node.args[:count])
            found = tuple(form for form in forms if form)
            if len(found) == count:
                yield Said(found, place)
            elif name != "_" or any(isinstance(one, _COMPOSED) for one in node.args):
                yield f"{place}:{node.lineno}: {name}() needs plain string literals."
        elif (
            (name.endswith("Error") or name == "sentence")
            and len(node.args) >= 2
            and _CODE.fullmatch(_literal(node.args[0]) or "")
            and " " in (_literal(node.args[1]) or "")
        ):
            yield f"{place}:{node.lineno}: the sentence isn't marked with N_()."


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def collect(root: Path = ROOT) -> tuple[Catalog, list[str]]:
    """Everything the program says, and the mistakes found on the way.

    Returns:
        A catalogue without translations, and lines for people.
    """
    catalog = Catalog()
    mistakes: list[str] = []
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            for found in say(path.read_text("utf-8"), place):
                if isinstance(found, str):
                    mistakes.append(found)
                    continue
                forms = found.forms
                message_id = forms[0] if len(forms) == 1 else forms
                # Python's own flag would make msgfmt look for %-formats.
                catalog.add(message_id, locations=[(found.place, 0)]).flags.discard("python-format")
    return catalog, mistakes


def updated_po(old: bytes, said: Catalog, locale: str) -> bytes:
    """The `.po` with everything in `said`, and nothing else; translations of `old` are kept."""
    kept = read_po(io.BytesIO(old), locale=locale)
    catalog = Catalog(locale=locale, charset="utf-8", fuzzy=False)
    catalog.header_comment = "# Cuntong. What the program says."
    for message in said:
        if not message.id:
            continue
        known = kept.get(message.id)
        same = known is not None and known.pluralizable == message.pluralizable
        new = catalog.add(
            message.id,
            known.string if known is not None and same else "",
            locations=sorted(set(message.locations)),
            user_comments=known.user_comments if known is not None else (),
        )
        new.flags = {"fuzzy"} if known is not None and known.fuzzy else set()
    output = io.BytesIO()
    write_po(output, catalog, width=_LINE_WIDTH, sort_output=True, include_lineno=False)
    unstable = tuple(f'"{header}:'.encode() for header in _UNSTABLE_HEADERS)
    lines = output.getvalue().splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(unstable))


def compile_mo(po: bytes, locale: str) -> bytes:
    """What `gettext` reads at run time."""
    output = io.BytesIO()
    catalogue = read_po(io.BytesIO(po), locale=locale)
    # Babel would write the present minute, and the same catalogue would compile to other bytes.
    catalogue.creation_date = CREATION_DATE
    write_mo(output, catalogue)
    return output.getvalue()


def faults(po: bytes, said: Catalog, locale: str) -> Iterator[str]:
    """Yield one line for each message that isn't translated, or not rightly."""
    catalog = read_po(io.BytesIO(po), locale=locale)
    for message in said:
        if message.id and catalog.get(message.id) is None:
            yield f"missing: {_name(message)}"
    for obsolete in catalog.obsolete.values():
        yield f"obsolete: {_name(obsolete)}"
    for message in catalog:
        if not message.id:
            continue
        if said.get(message.id) is None:
            yield f"nobody says this any more: {_name(message)}"
            continue
        if message.fuzzy:
            yield f"fuzzy: {_name(message)}"
        strings = message.string
        translations = [strings or ""] if not isinstance(strings, tuple | list) else [*strings]
        if not all(translations):
            yield f"not translated: {_name(message)}"
            continue
        wanted = _places(message)
        for translation in translations:
            if set(_PLACE.findall(translation)) != wanted:
                yield f"places differ: {_name(message)}"


def _name(message: Message) -> str:
    return repr(message.id if isinstance(message.id, str) else message.id[0])


def _places(message: Message) -> set[str]:
    """The places of the plural: a singular may do without the count, Chinese has one form."""
    return set(_PLACE.findall(message.id if isinstance(message.id, str) else message.id[-1]))


def files_of(locale: str, locale_dir: Path = LOCALE_DIR) -> tuple[Path, Path]:
    """The `.po` and the `.mo` of a language."""
    folder = locale_dir / locale / "LC_MESSAGES"
    return folder / f"{DOMAIN}.po", folder / f"{DOMAIN}.mo"


def check(root: Path = ROOT, locale_dir: Path = LOCALE_DIR) -> list[str]:
    """Everything that is wrong with the translations; empty when all is well."""
    said, problems = collect(root)
    for locale in LOCALES:
        po, mo = files_of(locale, locale_dir)
        if not po.exists():
            problems.append(f"{locale}: {po.name} is missing; run: make translations")
            continue
        problems += [f"{locale}: {fault}" for fault in faults(po.read_bytes(), said, locale)]
        if not mo.exists() or mo.read_bytes() != compile_mo(po.read_bytes(), locale):
            problems.append(
                f"{locale}: {mo.name} is not what {po.name} compiles to; run: make translations"
            )
    return problems


def update(root: Path = ROOT, locale_dir: Path = LOCALE_DIR) -> list[str]:
    """Write `.po` and `.mo` of every language; returns what is still to do by hand."""
    said, _ = collect(root)
    for locale in LOCALES:
        po, mo = files_of(locale, locale_dir)
        po.parent.mkdir(parents=True, exist_ok=True)
        text = updated_po(po.read_bytes() if po.exists() else b"", said, locale)
        po.write_bytes(text)
        mo.write_bytes(compile_mo(text, locale))
    return check(root, locale_dir)


def main(arguments: list[str]) -> int:
    """Run `check` or `update`; 1 when anything is left to do."""
    if arguments not in (["check"], ["update"]):
        sys.stderr.write("usage: python -m tests.support.translations check|update\n")
        return 64
    problems = check() if arguments == ["check"] else update()
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
