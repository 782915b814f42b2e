"""Passphrases: asked for at the terminal, or read from a file descriptor by scripts (`--passphrase-fd`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from cuntong_daemon.authority.keys import AuthorityError, KeyRing, PassphraseSource
from cuntong_daemon.i18n import _
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

TERMINAL_ATTEMPTS = 3
MIN_NEW_CHARS = 8
"""For new keys. A lost stick is guessed at offline; the key files are slow to guess, but not that slow."""
MAX_LINE_BYTES = 1024

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TerminalPassphrases:
    """Asks on the terminal, without echo; prompts go to stderr."""

    attempts: int = TERMINAL_ATTEMPTS

    def ask(self, prompt: str) -> str:
        """Ask once.

        Raises:
            click.Abort: Ctrl-C, or the terminal is gone.
        """
        answer: str = click.prompt(prompt, hide_input=True, err=True)
        return answer


@dataclass(frozen=True, slots=True)
class DescriptorPassphrases:
    """Reads one line for each time it is asked, in the order asked; a script knows no second attempt."""

    descriptor: int
    attempts: int = 1

    def ask(self, prompt: str) -> str:
        """Read one line, and not a byte more, so that several commands can share a descriptor.

        Raises:
            AuthorityError: `keys.no-more-passphrases`.
        """
        line = bytearray()
        while len(line) < MAX_LINE_BYTES:
            try:
                byte = os.read(self.descriptor, 1)
            except OSError as error:
                raise self._ended(prompt) from error
            if byte == b"\n":
                break
            if not byte:
                if line:
                    break
                raise self._ended(prompt)
            line += byte
        try:
            return line.decode().removesuffix("\r")
        except UnicodeDecodeError:
            raise self._ended(prompt) from None

    def _ended(self, prompt: str) -> AuthorityError:
        return AuthorityError(
            "keys.no-more-passphrases",
            N_("--passphrase-fd {number} gave no line for this question: {question}"),
            fault=Fault.USAGE,
            number=self.descriptor,
            question=prompt,
        )


def passphrase_source(descriptor: int | None) -> PassphraseSource:
    """The source that `--passphrase-fd` asks for; the terminal without it."""
    return TerminalPassphrases() if descriptor is None else DescriptorPassphrases(descriptor)


def new_passphrase(source: PassphraseSource, what: str) -> str:
    """A passphrase for new keys; on a terminal it is asked for twice.

    Args:
        source: Where from.
        what: What to ask, for example "New passphrase for the keys in /media/stick1".

    Raises:
        AuthorityError: `keys.short-passphrase`, `keys.passphrases-differ`.
    """
    passphrase = source.ask(what)
    if len(passphrase) < MIN_NEW_CHARS:
        raise AuthorityError(
            "keys.short-passphrase",
            N_("A passphrase needs at least {count} characters. Nothing was changed."),
            fault=Fault.USAGE,
            count=MIN_NEW_CHARS,
        )
    if source.attempts > 1 and source.ask(_("The same again")) != passphrase:
        raise AuthorityError(
            "keys.passphrases-differ",
            N_("The two passphrases differ. Nothing was changed."),
            fault=Fault.USAGE,
        )
    return passphrase


def key_ring(folders: tuple[Path, ...], descriptor: int | None) -> KeyRing:
    """The keys on the sticks named with `--keys`.

    Raises:
        AuthorityError: `keys.no-stick`.
    """
    return KeyRing(folders, passphrase_source(descriptor))


def passphrase_option(command: F) -> F:
    """`--passphrase-fd N`; the parameter is called `passphrase_fd`."""
    return click.option(
        "--passphrase-fd",
        type=int,
        metavar="N",
        help=_("Read passphrases from this file descriptor, one line for each question."),
    )(command)


def keys_option(command: F) -> F:
    """`--keys DIR`, repeatable; the parameter is called `keys`: a tuple of folders, one for each stick."""
    return click.option(
        "--keys",
        type=click.Path(path_type=Path, file_okay=False),
        multiple=True,
        metavar="DIR",
        help=_("Folder with key files; give it once for each memory stick."),
    )(command)
