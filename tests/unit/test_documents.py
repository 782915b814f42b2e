"""The documents name commands, error codes and files that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cuntong_tools.main import build

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
READMES = DOCUMENTS[:2]
_CODE = re.compile(r"`([a-z]+\.[a-z*-]+)`")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


def commands_in(document: str) -> Iterator[list[str]]:
    """Yield the words of each `cuntong …` that a reader would type, without `cuntong` itself."""
    text = (ROOT / document).read_text("utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(cuntong [^`]*)`", text)
    for line in lines:
        if line.startswith("cuntong "):
            yield shlex.split(line, comments=True)[1:]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and what is left of them."""
    command: click.Command = build()
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("document", READMES)
def test_every_command_and_option_exists(document: str) -> None:
    found = list(commands_in(document))
    assert len(found) > 20
    for words in found:
        command, rest = resolve(words)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options | {"--help"}, words


@pytest.mark.parametrize("document", READMES)
def test_every_error_code_exists(document: str) -> None:
    source = "".join(
        path.read_text("utf-8")
        for folder in ("protocol", "daemon", "tools")
        for path in (ROOT / folder).rglob("*.py")
    )
    codes = {
        code
        for code in _CODE.findall((ROOT / document).read_text("utf-8"))
        if not code.endswith((".md", ".toml", ".sqlite", ".py"))
    }
    assert len(codes) > 30
    assert [code for code in sorted(codes) if f'"{code.removesuffix("*")}' not in source] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    links = _LINK.findall((ROOT / document).read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_both_readmes_say_the_same() -> None:
    english, chinese = (
        [re.findall(r"--[a-z-]+", " ".join(words)) for words in commands_in(document)]
        for document in READMES
    )
    assert english == chinese
