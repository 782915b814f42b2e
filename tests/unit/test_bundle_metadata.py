"""The publisher's metadata file: what it becomes, and where it is wrong."""

from __future__ import annotations

import datetime as dt

import pytest

from cuntong_protocol.bundle.metadata import (
    Audience,
    Licence,
    Metadata,
    MetadataFileError,
    Release,
    key_lines,
    parse_metadata,
)
from cuntong_protocol.divisions import NATION, Division

GUANGDONG = Division("440000000000")
START = 'title = "T"\nslug = "t"\ndate = 2027-03-01\n'


def parse(text: str, publisher: Division = GUANGDONG) -> Metadata:
    return parse_metadata(text, file="m.toml", publisher=publisher)


def test_every_key_is_read() -> None:
    text = """
title = "e\u0301cole 春"   # shown
slug = "spring-1"
date = 2027-03-01
category = "opera/film"
languages = ["zh-Hans", "bo"]
priority = 9
[terms]
creator = "A"
subject = ["x", "y"]
description = '''
Two
lines'''
[audience]
tiers = ["village"]
scope = ["4419", "441900000000", "440100"]
groups = ["schools"]
[licence]
kind = "restricted"
scope = ["44"]
until = 2030-01-01
text = "By agreement"
[release]
name = "March"
[release.deadlines]
county = 2027-05-01
"""
    assert parse(text) == Metadata(
        title="\u00e9cole 春",
        slug="spring-1",
        date=dt.date(2027, 3, 1),
        category="opera/film",
        languages=("zh-Hans", "bo"),
        priority=9,
        terms={"creator": ("A",), "subject": ("x", "y"), "description": ("Two\nlines",)},
        audience=Audience(tiers=("village",), scope=("4401", "4419"), groups=("schools",)),
        licence=Licence(
            kind="restricted", scope=("44",), until=dt.date(2030, 1, 1), text="By agreement"
        ),
        release=Release(name="March", deadlines={"county": dt.date(2027, 5, 1)}),
    )


def test_defaults_do_not_restrict() -> None:
    assert parse(START) == Metadata(title="T", slug="t", date=dt.date(2027, 3, 1))
    assert parse(START).time == 1_803_859_200


def test_nation_may_address_everyone() -> None:
    assert parse(START + "audience.scope = ['000000000000', '65']", NATION).audience.scope == (
        "",
        "65",
    )


@pytest.mark.parametrize(
    ("text", "code", "start"),
    [
        ("title = \n", "metadata.bad-toml", "m.toml, line 1: "),
        ("a = 1\n\nb = [\n", "metadata.bad-toml", "m.toml, line 4: "),
        ("x" * 70_000, "metadata.too-long", "m.toml has more"),
        ("titel = 'T'", "metadata.unknown-key", "m.toml, line 1: unknown key titel; the nearest known one is title."),
        (START + "[audience]\n\ntier = []", "metadata.unknown-key", "m.toml, line 6: unknown key audience.tier; the nearest known one is audience.tiers."),
        (START + "[terms]\ncreater = 'x'", "metadata.unknown-key", "m.toml, line 5: unknown key terms.creater; the nearest known one is terms.creator."),
        (START + "[release]\nname='r'\n[release.deadlines]\ntown = 2027-01-01", "metadata.unknown-key", "m.toml, line 7: unknown key release.deadlines.town; the"),
        ("title = 'T'\nslug = 't'\n", "metadata.missing-key", "m.toml, line 1: the key date is missing."),
        (START + "[release]\n", "metadata.missing-key", "m.toml, line 4: the key release.name is missing."),
        ("title = ''\nslug = 't'\ndate = 2027-03-01", "metadata.bad-value", "m.toml, line 1: title must be a text"),
        ("title = 'T\\u202e'\nslug = 't'\ndate = 2027-03-01".replace("'", '"'), "metadata.bad-value", "m.toml, line 1: title must be a text"),
        ("title = 'T'\nslug = '-t'\ndate = 2027-03-01", "metadata.bad-value", "m.toml, line 2: slug must be 1 to 64"),
        ("title = 'T'\nslug = 't'\ndate = 'yesterday'", "metadata.bad-value", "m.toml, line 3: date must be a date"),
        ("title = 'T'\nslug = 't'\ndate = 2027-03-01T10:00:00", "metadata.bad-value", "m.toml, line 3: date must be a date"),
        (START + "category = 'a//b'", "metadata.bad-value", "m.toml, line 4: category must be words"),
        (START + "languages = []", "metadata.bad-value", "m.toml, line 4: languages must be a list"),
        (START + "languages = [\n'zh',\n'z h']", "metadata.bad-value", "m.toml, line 4: languages must be a list"),
        (START + "priority = 10", "metadata.bad-value", "m.toml, line 4: priority must be a whole number"),
        (START + "priority = true", "metadata.bad-value", "m.toml, line 4: priority must be a whole number"),
        (START + "terms = 3", "metadata.bad-value", "m.toml, line 4: terms must be a text"),
        (START + "[terms]\ncreator = 'x'\nsubject = [1]", "metadata.bad-value", "m.toml, line 6: terms.subject must be a text"),
        (START + "[terms]\ncreator = []", "metadata.bad-value", "m.toml, line 4: terms must be a text"),
        (START + "audience = 'all'", "metadata.bad-value", "m.toml, line 4: audience must be a table"),
        (START + "audience = { tiers = ['town'] }", "metadata.bad-value", "m.toml, line 4: audience.tiers must be a list of: nation"),
        (START + "[audience]\nscope = ['4419x']", "metadata.bad-value", "m.toml, line 5: audience.scope must be a list of division codes"),
        (START + "[audience]\nscope = '4419'", "metadata.bad-value", "m.toml, line 5: audience.scope must be a list of division codes"),
        (START + "[audience]\ngroups = ['a b']", "metadata.bad-value", "m.toml, line 5: audience.groups must be a list of words"),
        (START + "[audience]\nscope = ['45']", "metadata.outside-scope", "m.toml, line 5: 45 in audience.scope lies outside 440000000000"),
        (START + "[licence]\nkind = 'free'", "metadata.bad-value", "m.toml, line 5: licence.kind must be"),
        (START + "[licence]\nuntil = 3", "metadata.bad-value", "m.toml, line 5: licence.until must be a date"),
        (START + "[licence]\nscope = ['1']", "metadata.bad-value", "m.toml, line 5: licence.scope must be a list"),
        (START + "[licence]\ntext = 1", "metadata.bad-value", "m.toml, line 5: licence.text must be a text"),
        (START + "[licence]\nkind = 'restricted'", "metadata.restricted-without-scope", "m.toml, line 5: a restricted licence needs"),
        (START + "[licence]\nscope = ['44']", "metadata.open-with-scope", "m.toml, line 5: only a licence"),
        (START + "release = 1", "metadata.bad-value", "m.toml, line 4: release must be a table"),
        (START + "[release]\nname = 1", "metadata.bad-value", "m.toml, line 5: release.name must be a text"),
        (START + "[release]\nname = 'r'\ndeadlines = 1", "metadata.bad-value", "m.toml, line 6: release.deadlines must name tiers"),
        (START + "[release]\nname = 'r'\n[release.deadlines]\ncity = 2027-01-01\ncounty = 3", "metadata.bad-value", "m.toml, line 8: release.deadlines.county must"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_line(text: str, code: str, start: str) -> None:
    with pytest.raises(MetadataFileError) as caught:
        parse(text)
    assert (caught.value.code, str(caught.value)[: len(start)]) == (code, start)


def test_lines_are_found_around_texts_of_many_lines() -> None:
    text = 'a = """\nb = 1\n[c]\n"""\n[d]  # note\n"e" = 1\nf.g = \'\'\'x\'\'\'\nh = 1\n'
    lines = key_lines(text)
    assert lines == {
        ("a",): 1,
        ("d",): 5,
        ("d", "e"): 6,
        ("d", "f"): 7,
        ("d", "f", "g"): 7,
        ("d", "h"): 8,
    }
