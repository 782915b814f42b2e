"""Sentences for people: written in English where they arise, translated where they are shown.

A sentence is a template with `{name}` places and the values for them. Templates are marked with `N_`
so that the catalogue of translations finds them; whoever shows a sentence looks the template up in
that catalogue first. Sentences also come from other nodes, so filling one in never evaluates anything:
only plain names are replaced (SPEC 1.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import msgspec

MAX_TEMPLATE_CHARS = 500
"""Longer than any sentence of ours; a peer can't fill a screen."""
MAX_PARAMS = 16
MAX_PARAM_CHARS = 500

_PLACE = re.compile(r"\{([a-z_]{1,40})\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def N_(template: str) -> str:
    """Mark a template for translation and return it as it is."""
    return template


class Sentence(msgspec.Struct, frozen=True):
    """One sentence for a person, with a stable code for programs.

    Attributes:
        code: Dotted lower-case words, for example `build.empty-folder`. Never changes once released.
        template: English, with `{name}` places.
        params: Values for the places.
    """

    code: Annotated[str, msgspec.Meta(max_length=80, pattern=r"\A[a-z0-9-]+(\.[a-z0-9-]+)*\Z")]
    template: Annotated[str, msgspec.Meta(max_length=MAX_TEMPLATE_CHARS)]
    params: Annotated[
        dict[
            Annotated[str, msgspec.Meta(max_length=40)],
            int | Annotated[str, msgspec.Meta(max_length=MAX_PARAM_CHARS)],
        ],
        msgspec.Meta(max_length=MAX_PARAMS),
    ] = {}

    def render(self, translate: Callable[[str], str] = lambda template: template) -> str:
        """Fill in the (translated) template. Control and direction characters are replaced by `?`."""

        def fill(match: re.Match[str]) -> str:
            value = self.params.get(match[1])
            return match[0] if value is None else _CONTROL.sub("?", str(value))

        return _PLACE.sub(fill, _CONTROL.sub("?", translate(self.template)))

    def __str__(self) -> str:
        return self.render()


def sentence(code: str, template: str, /, **params: str | int) -> Sentence:
    """Make a sentence; over-long values are cut so that it always fits on the wire."""
    return Sentence(
        code,
        template,
        {
            # str() because msgspec takes no subclass of it, such as a division code.
            name: value if isinstance(value, int) else _cut(str(value), MAX_PARAM_CHARS)
            for name, value in params.items()
        },
    )


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"
