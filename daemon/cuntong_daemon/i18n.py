"""Translation: `LANG` (or `LC_ALL`, `LC_MESSAGES`, `LANGUAGE`) decides, English is what is written."""

from __future__ import annotations

import functools
import gettext
from pathlib import Path

from cuntong_protocol.texts import Sentence

LOCALE_DIR = Path(__file__).parent / "locale"
DOMAIN = "cuntong"


@functools.cache
def _catalogue() -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE_DIR, fallback=True)


def _(template: str, **params: str | int) -> str:
    """Translate a template and fill in its `{name}` places."""
    return show(Sentence("text", template, dict(params.items())))


def ngettext(one: str, many: str, count: int, **params: str | int) -> str:
    """Translate with plural forms; `{count}` is filled in too."""
    template = _catalogue().ngettext(one, many, count)
    return Sentence("text", template, {"count": count, **params}).render()


def show(sentence: Sentence) -> str:
    """A sentence in the user's language."""
    return sentence.render(lambda template: _catalogue().gettext(template) if template else "")
