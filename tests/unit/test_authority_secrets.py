"""Where passphrases come from."""

from __future__ import annotations

import os

import click
import pytest

from cuntong_daemon.authority.keys import AuthorityError
from cuntong_daemon.authority.settings import (
    Endorsement,
    Settings,
    decode_settings,
    encode_settings,
)
from cuntong_protocol.divisions import Division
from cuntong_tools.secrets import (
    DescriptorPassphrases,
    TerminalPassphrases,
    new_passphrase,
    passphrase_source,
)
from tests.support.authorities import NOW, Answers


def _pipe(data: bytes) -> int:
    read, end = os.pipe()
    os.write(end, data)
    os.close(end)
    return read


def test_script_gives_one_line_for_each_question() -> None:
    read = _pipe("first one\n第二个\r\nlast without end".encode())
    source = DescriptorPassphrases(read)
    assert [source.ask("?") for _time in range(3)] == ["first one", "第二个", "last without end"]
    with pytest.raises(AuthorityError) as caught:
        source.ask("Passphrase for the fourth")
    assert caught.value.code == "keys.no-more-passphrases"
    assert "fourth" in str(caught.value)
    os.close(read)


def test_two_commands_can_share_a_descriptor() -> None:
    read = _pipe(b"one\ntwo\n")
    assert DescriptorPassphrases(read).ask("?") == "one"
    assert DescriptorPassphrases(read).ask("?") == "two"
    os.close(read)


def test_descriptor_that_gives_nonsense_is_said() -> None:
    read = _pipe(b"\xff\xfe\n")
    with pytest.raises(AuthorityError):
        DescriptorPassphrases(read).ask("?")
    os.close(read)
    with pytest.raises(AuthorityError) as caught:
        DescriptorPassphrases(read).ask("?")
    assert caught.value.code == "keys.no-more-passphrases"


def test_endless_line_is_cut() -> None:
    read = _pipe(b"x" * 5000)
    assert len(DescriptorPassphrases(read).ask("?")) == 1024
    os.close(read)


def test_without_a_descriptor_the_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def prompt(text: str, **options: object) -> str:
        seen.append((text, options["hide_input"], options["err"]))
        return "typed"

    monkeypatch.setattr(click, "prompt", prompt)
    source = passphrase_source(None)
    assert isinstance(source, TerminalPassphrases)
    assert source.ask("Passphrase") == "typed"
    assert seen == [("Passphrase", True, True)]
    assert isinstance(passphrase_source(0), DescriptorPassphrases)


def test_new_passphrase_is_long_enough_and_typed_twice() -> None:
    assert new_passphrase(Answers(["long enough"]), "new") == "long enough"
    assert new_passphrase(Answers(["long enough"] * 2, attempts=3), "new") == "long enough"
    for answers, code in (
        (Answers(["short"]), "keys.short-passphrase"),
        (Answers(["long enough", "long enoguh"], attempts=3), "keys.passphrases-differ"),
    ):
        with pytest.raises(AuthorityError) as caught:
            new_passphrase(answers, "new")
        assert caught.value.code == code


def test_settings_come_back_whatever_the_name_holds() -> None:
    settings = Settings(
        Division("441900000000"),
        '东莞 "文化馆" \\ x',
        {"root-1": "ab" * 32, "ca": "cd" * 32},
        Endorsement("440000000000", 2, NOW.date()),
    )
    assert decode_settings(encode_settings(settings)) == settings
    for damaged in (b"", b"code = 3", encode_settings(settings).replace(b"4419", b"44"), b"\xff"):
        with pytest.raises(ValueError):
            decode_settings(damaged)
