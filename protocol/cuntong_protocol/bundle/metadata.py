"""What a publisher says about a bundle (SPEC 3.2), and the file in which it is said.

The Structs also travel inside the descriptor, so their rules hold for what comes from other authorities too.
Empty lists mean "no restriction": an audience without a scope is the whole subtree of whoever lists
the bundle, so promotion widens it without a new descriptor.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import tomllib
import unicodedata
from typing import Annotated, Any, Literal

import msgspec

from cuntong_protocol.divisions import (
    TIER_LABELS,
    Division,
    DivisionError,
    division_of_prefix,
    parse_division,
)
from cuntong_protocol.texts import N_

from .errors import BundleError

MAX_METADATA_CHARS = 64 * 1024
"""A metadata file; the descriptor made of it has the same limit."""
SLUG_PATTERN = r"\A[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z"
TERM_NAMES = (
    "creator",
    "contributor",
    "publisher",
    "subject",
    "description",
    "type",
    "format",
    "identifier",
    "source",
    "relation",
    "coverage",
    "rights",
)

# No control or direction characters: these texts are shown in terminals and lists.
_PLAIN = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z"
_PLAIN_LINES = r"\A[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*\Z"
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_PLAIN)]
Text = Annotated[str, msgspec.Meta(max_length=8000, pattern=_PLAIN_LINES)]
Slug = Annotated[str, msgspec.Meta(pattern=SLUG_PATTERN)]
Word = Annotated[str, msgspec.Meta(max_length=64, pattern=r"\A\w[\w-]*\Z")]
Category = Annotated[str, msgspec.Meta(max_length=128, pattern=r"\A\w[\w-]*(/\w[\w-]*)*\Z")]
Language = Annotated[
    str, msgspec.Meta(max_length=35, pattern=r"\A[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*\Z")
]
Prefix = Annotated[
    str, msgspec.Meta(pattern=r"\A([0-9]{2}|[0-9]{4}|[0-9]{6}|[0-9]{9}|[0-9]{12})?\Z")
]
_CODE = re.compile(r"[0-9]{2}|[0-9]{4}|[0-9]{6}|[0-9]{9}|[0-9]{12}")
TierLabel = Literal["nation", "province", "city", "county", "township", "village"]
Prefixes = Annotated[tuple[Prefix, ...], msgspec.Meta(max_length=1000)]


class Audience(msgspec.Struct, frozen=True, omit_defaults=True):
    """For whom a bundle is meant; an empty list doesn't restrict.

    Attributes:
        tiers: Labels of tiers.
        scope: Code prefixes (`Division.prefix`), all within the publisher's subtree.
        groups: Words that a node's configuration names, for example `schools`.
    """

    tiers: Annotated[tuple[TierLabel, ...], msgspec.Meta(max_length=6)] = ()
    scope: Prefixes = ()
    groups: Annotated[tuple[Word, ...], msgspec.Meta(max_length=100)] = ()


class Licence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who may hold a bundle, and until when.

    Attributes:
        kind: `open`, or `restricted` to the scope.
        scope: Code prefixes whose nodes may hold it; only with `restricted`, and then not empty.
        until: The last day, or None.
        text: The licence's name or words.
    """

    kind: Literal["open", "restricted"] = "open"
    scope: Prefixes = ()
    until: dt.date | None = None
    text: Text = ""


class Release(msgspec.Struct, frozen=True, omit_defaults=True):
    """The release a bundle belongs to.

    Attributes:
        name: Shared by the bundles of the release.
        deadlines: Tier label to the day by which nodes of that tier shall have it.
    """

    name: Title
    deadlines: Annotated[dict[TierLabel, dt.date], msgspec.Meta(max_length=6)] = {}


class Build(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the payload is built.

    Attributes:
        hybrid: A torrent that other programs read too, with BitTorrent v1 beside v2; only with an open licence.
    """

    hybrid: bool = False


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bundle's metadata.

    Attributes:
        title: For people.
        slug: Last part of the bundle's id, and the name of its torrent.
        date: The date of the content.
        category: Words from general to special, joined by `/`.
        languages: BCP 47 tags.
        terms: Dublin Core terms (`TERM_NAMES`), each with one value or more.
        audience: For whom it is meant.
        licence: Who may hold it.
        priority: 0 (bulk) to 9 (urgent).
        release: The release it belongs to, or None.
        build: How the payload is built.
    """

    title: Title
    slug: Slug
    date: dt.date
    category: Category = "general"
    languages: Annotated[tuple[Language, ...], msgspec.Meta(min_length=1, max_length=50)] = (
        "zh-Hans",
    )
    terms: Annotated[
        dict[
            Literal[
                "creator",
                "contributor",
                "publisher",
                "subject",
                "description",
                "type",
                "format",
                "identifier",
                "source",
                "relation",
                "coverage",
                "rights",
            ],
            Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=200)],
        ],
        msgspec.Meta(max_length=12),
    ] = {}
    audience: Audience = Audience()
    licence: Licence = Licence()
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    release: Release | None = None
    build: Build = Build()

    @property
    def time(self) -> int:
        """The modification time of every file of the bundle: its date, in seconds since 1970, UTC."""
        midnight = dt.datetime.combine(self.date, dt.time(), dt.UTC)
        return int(midnight.timestamp())


# What each key must be: one sentence, so that it can be translated whole.
_EXPECTED = {
    "title": N_("{file}, line {line}: {key} must be a text of 1 to 200 characters on one line."),
    "slug": N_(
        "{file}, line {line}: {key} must be 1 to 64 lower-case letters, digits or inner hyphens."
    ),
    "date": N_("{file}, line {line}: {key} must be a date, for example 2027-03-01."),
    "category": N_("{file}, line {line}: {key} must be words joined by /, for example opera/film."),
    "languages": N_(
        '{file}, line {line}: {key} must be a list of language tags, for example ["zh-Hans", "bo"].'
    ),
    "terms": N_("{file}, line {line}: {key} must be a text or a list of texts."),
    "audience": N_("{file}, line {line}: {key} must be a table, as in [audience]."),
    "audience.tiers": N_(
        "{file}, line {line}: {key} must be a list of: nation, province, city, county, township, village."
    ),
    "audience.scope": N_(
        '{file}, line {line}: {key} must be a list of division codes, for example ["4419"].'
    ),
    "audience.groups": N_("{file}, line {line}: {key} must be a list of words."),
    "licence": N_("{file}, line {line}: {key} must be a table, as in [licence]."),
    "licence.kind": N_('{file}, line {line}: {key} must be "open" or "restricted".'),
    "licence.scope": N_(
        '{file}, line {line}: {key} must be a list of division codes, for example ["4419"].'
    ),
    "licence.until": N_("{file}, line {line}: {key} must be a date, for example 2027-03-01."),
    "licence.text": N_("{file}, line {line}: {key} must be a text of up to 8,000 characters."),
    "priority": N_(
        "{file}, line {line}: {key} must be a whole number from 0 (bulk) to 9 (urgent)."
    ),
    "release": N_("{file}, line {line}: {key} must be a table with a name, as in [release]."),
    "release.name": N_(
        "{file}, line {line}: {key} must be a text of 1 to 200 characters on one line."
    ),
    "release.deadlines": N_(
        "{file}, line {line}: {key} must name tiers with dates, for example county = 2027-03-01."
    ),
    "build": N_("{file}, line {line}: {key} must be a table, as in [build]."),
    "build.hybrid": N_("{file}, line {line}: {key} must be true or false."),
}


_CHECKED = {
    "metadata.outside-scope": (
        ("audience", "scope"),
        N_(
            "{file}, line {line}: {prefix} in {key} lies outside {publisher}, the publisher's place."
        ),
    ),
    "metadata.restricted-without-scope": (
        ("licence", "kind"),
        N_("{file}, line {line}: a restricted licence needs a scope: who may hold the bundle?"),
    ),
    "metadata.open-with-scope": (
        ("licence", "scope"),
        N_('{file}, line {line}: only a licence of kind = "restricted" has a scope.'),
    ),
    "metadata.restricted-hybrid": (
        ("build", "hybrid"),
        N_(
            "{file}, line {line}: a hybrid torrent is for other people's programs, so its licence must be open."
        ),
    ),
}


class MetadataFileError(BundleError):
    """A metadata file that must be refused; the sentence names file, line and reason."""


def check_metadata(metadata: Metadata, *, publisher: Division) -> None:
    """Check what the types can't say.

    Raises:
        BundleError: `metadata.outside-scope`, `metadata.restricted-without-scope`,
            `metadata.open-with-scope`, `metadata.restricted-hybrid`, `metadata.bad-prefix`.
    """
    for prefix in (*metadata.audience.scope, *metadata.licence.scope):
        try:
            division_of_prefix(prefix)
        except DivisionError:
            raise BundleError(
                "metadata.bad-prefix",
                N_("{prefix} is not the prefix of a division."),
                prefix=prefix,
            ) from None
    for prefix in metadata.audience.scope:
        if not prefix.startswith(publisher.prefix):
            raise BundleError(
                "metadata.outside-scope",
                N_("{prefix} lies outside {publisher}, the publisher's place."),
                prefix=prefix,
                publisher=publisher,
            )
    if metadata.licence.kind == "restricted" and not metadata.licence.scope:
        raise BundleError(
            "metadata.restricted-without-scope", N_("A restricted licence needs a scope.")
        )
    if metadata.licence.kind == "open" and metadata.licence.scope:
        raise BundleError("metadata.open-with-scope", N_("An open licence has no scope."))
    if metadata.build.hybrid and metadata.licence.kind != "open":
        raise BundleError(
            "metadata.restricted-hybrid", N_("A hybrid torrent needs an open licence.")
        )


def parse_metadata(text: str, *, file: str, publisher: Division) -> Metadata:
    """Read a metadata file.

    Args:
        text: Its content, TOML.
        file: Its name, for error messages.
        publisher: Who publishes; the audience must lie within.

    Raises:
        MetadataFileError: `metadata.too-long`, `metadata.bad-toml`, `metadata.unknown-key`,
            `metadata.missing-key`, `metadata.bad-value`, and the codes of `check_metadata`.
    """
    if len(text) > MAX_METADATA_CHARS:
        raise MetadataFileError(
            "metadata.too-long",
            N_("{file} has more than {limit} characters: is it really a metadata file?"),
            file=file,
            limit=MAX_METADATA_CHARS,
        )
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r" \(at line ([0-9]+), column [0-9]+\)", str(error))
        raise MetadataFileError(
            "metadata.bad-toml",
            N_("{file}, line {line}: this is not valid TOML: {detail}."),
            file=file,
            line=int(where[1]) if where else text.count("\n") + 1,
            detail=str(error).partition(" (at ")[0],
        ) from None
    return _Reader(text, file, publisher).read(raw)


class _Reader:
    """Turns parsed TOML into Metadata, or into an error that says where."""

    def __init__(self, text: str, file: str, publisher: Division) -> None:
        self._lines = key_lines(text)
        self._file = file
        self._publisher = publisher

    def read(self, raw: dict[str, Any]) -> Metadata:
        self._refuse_unknown(raw, (), tuple(Metadata.__struct_fields__))
        for name, known in (
            ("terms", TERM_NAMES),
            ("audience", Audience.__struct_fields__),
            ("licence", Licence.__struct_fields__),
            ("release", Release.__struct_fields__),
            ("build", Build.__struct_fields__),
        ):
            self._refuse_unknown(raw.get(name), (name,), known)
        if isinstance(release := raw.get("release"), dict):
            self._refuse_unknown(release.get("deadlines"), ("release", "deadlines"), TIER_LABELS)
        self._require(raw, (), ("title", "slug", "date"))
        self._require(raw.get("release"), ("release",), ("name",))
        tidy = self._tidy(raw)
        try:
            metadata = msgspec.convert(tidy, Metadata)
        except msgspec.ValidationError as error:
            raise self._bad_value(_error_path(str(error), tidy)) from None
        try:
            check_metadata(metadata, publisher=self._publisher)
        except BundleError as error:
            path, template = _CHECKED[error.code]
            raise self._error(error.code, template, path, **error.sentence.params) from None
        return metadata

    def _refuse_unknown(self, table: object, path: tuple[str, ...], known: tuple[str, ...]) -> None:
        for key in table if isinstance(table, dict) else ():
            if key not in known:
                nearest = difflib.get_close_matches(key, known, 1, cutoff=0)[0]
                raise self._error(
                    "metadata.unknown-key",
                    N_(
                        "{file}, line {line}: unknown key {key}; the nearest known one is {nearest}."
                    ),
                    (*path, key),
                    nearest=".".join((*path, nearest)),
                )

    def _require(self, table: object, path: tuple[str, ...], keys: tuple[str, ...]) -> None:
        for key in keys if isinstance(table, dict) else ():
            if key not in table:  # type: ignore[operator]
                raise self._error(
                    "metadata.missing-key",
                    N_("{file}, line {line}: the key {key} is missing."),
                    (*path, key),
                )

    def _tidy(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Codes to prefixes, single terms to lists, all texts to NFC."""
        tidy: dict[str, Any] = _to_nfc(raw)
        terms = tidy.get("terms")
        if isinstance(terms, dict):
            tidy["terms"] = {
                key: [value] if isinstance(value, str) else value for key, value in terms.items()
            }
        for name in ("audience", "licence"):
            table = tidy.get(name)
            if isinstance(table, dict) and isinstance(table.get("scope"), list):
                codes = [str(code) for code in table["scope"]]
                if not all(_CODE.fullmatch(code) for code in codes):
                    raise self._bad_value((name, "scope"))
                table["scope"] = sorted({parse_division(code).prefix for code in codes})
        return tidy

    def _bad_value(self, path: tuple[str, ...]) -> MetadataFileError:
        expected = next(
            template
            for length in range(len(path), 0, -1)
            if (template := _EXPECTED.get(".".join(path[:length])))
        )
        return self._error("metadata.bad-value", expected, path)

    def _error(
        self, code: str, template: str, path: tuple[str, ...], **params: str | int
    ) -> MetadataFileError:
        line = next(
            (
                self._lines[path[:length]]
                for length in range(len(path), 0, -1)
                if path[:length] in self._lines
            ),
            1,
        )
        places: dict[str, str | int] = {
            "file": self._file,
            "line": line,
            "key": ".".join(path),
            **params,
        }
        return MetadataFileError(code, template, fault=None, **places)


def _to_nfc(value: Any) -> Any:  # noqa: ANN401  # TOML is a tree of anything.
    match value:
        case str():
            return unicodedata.normalize("NFC", value)
        case list():
            return [_to_nfc(item) for item in value]
        case dict():
            return {key: _to_nfc(item) for key, item in value.items()}
        case _:
            return value


def _error_path(message: str, tidy: dict[str, Any]) -> tuple[str, ...]:
    """The key that msgspec complains about; inside a table of like values it names none, so look there."""
    found = re.search(r"`\$((?:\.\w+)*)(\[\.\.\.\])?", message)
    path = tuple(found[1].split(".")[1:]) if found else ("title",)
    if path == ("terms",) and isinstance(terms := tidy["terms"], dict):
        for name, value in terms.items():
            try:
                msgspec.convert(value, tuple[Text, ...])
            except msgspec.ValidationError:
                return ("terms", name)
    if path == ("release", "deadlines") and isinstance(days := tidy["release"]["deadlines"], dict):
        for tier, day in days.items():
            try:
                msgspec.convert(day, dt.date)
            except msgspec.ValidationError:
                return ("release", "deadlines", tier)
    return path


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Where the keys of a valid TOML file stand (from 1), tables at their header.

    tomllib doesn't tell. Keys inside an inline table are not found; the table is.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if inside:
            inside = "" if inside in line else inside
            continue
        if header := _HEADER.fullmatch(line):
            table = _key_path(header[1])
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            path = (*table, *_key_path(key[1]))
            for length in range(1, len(path) + 1):
                lines.setdefault(path[:length], number)
            for quotes in ('"""', "'''"):
                if line.count(quotes) == 1:
                    inside = quotes
    return lines


def _key_path(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
