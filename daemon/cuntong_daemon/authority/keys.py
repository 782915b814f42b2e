"""The keys of an authority: encrypted files on memory sticks, found by key id (SPEC 4.11).

A key file is ordinary encrypted PKCS#8 in PEM (`openssl pkey` reads it), with a few lines before it that
say whose key it is. These lines are only a label to find the key by: once decrypted, the key's real id is
compared, so a label that lies costs nothing but a clear refusal.
"""

from __future__ import annotations

import base64
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.files import write_atomically
from cuntong_daemon.i18n import _
from cuntong_daemon.pki.certificates import PrivateKey, PublicKey, checked_public_key
from cuntong_daemon.pki.certificates import new_key as new_key
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_

SCRYPT_COST = 2**14
"""With block size 8: 16 MiB, the most that `openssl` takes by default."""
SCRYPT_BLOCK_SIZE = 8
SCRYPT_PARALLELISM = 5
"""A stick gets lost: this makes a guess cost about a quarter of a second (OWASP's figure for 16 MiB)."""
MAX_KEY_FILE_BYTES = 16_384
"""Ours have below 1 KiB."""
MAX_FILES_ON_STICK = 1000
"""Looked at when a key is searched; a stick that is used for other things too isn't read to its end."""

_LABEL = re.compile(rb"^cuntong-(authority|name|key-id): (\S{1,100})$", re.MULTILINE)

_PEM = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----\s([A-Za-z0-9+/=\s]+)-----END ENCRYPTED PRIVATE KEY-----"
)


class AuthorityError(CuntongError):
    """Something at the keyboard of an authority that doesn't go. Nothing was changed."""

    fault = Fault.REFUSED


class PassphraseSource(Protocol):
    """Where passphrases come from."""

    @property
    def attempts(self) -> int:
        """How often to ask for one key before giving up."""
        ...

    def ask(self, prompt: str) -> str:
        """One passphrase, as typed."""
        ...


@dataclass(frozen=True, slots=True)
class KeyLabel:
    """What the lines before a key say.

    Attributes:
        authority: Division code.
        name: `root-1`, `targets`, `reviewer-2`, `enrolment`, `ca`.
        key_id: TUF key id, 64 hex digits.
    """

    authority: str
    name: str
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key found on a stick, still encrypted."""

    path: Path
    label: KeyLabel


def public_key(key: PrivateKey | PublicKey) -> SSlibKey:
    """The TUF form of a key; its `keyid` is what keys are found by."""
    public = key if not hasattr(key, "public_key") else key.public_key()
    return SSlibKey.from_crypto(public)


def key_id(key: PrivateKey | PublicKey) -> str:
    """TUF key id: 64 hex digits, computed from the public key."""
    return public_key(key).keyid


def encrypt_key(key: PrivateKey, passphrase: str, label: KeyLabel) -> bytes:
    """A key file: the label, then encrypted PKCS#8 (RFC 8018 PBES2 with scrypt, RFC 7914, and AES-256-CBC).

    pyca/cryptography would write PBKDF2 with 2,048 rounds, too few for something that can be lost.
    """
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, iv = os.urandom(16), os.urandom(16)
    cost = (SCRYPT_COST, SCRYPT_BLOCK_SIZE, SCRYPT_PARALLELISM)
    secret = Scrypt(salt, 32, *cost).derive(_passphrase_bytes(passphrase))
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(padder.update(der) + padder.finalize()) + encryptor.finalize()
    scrypt = _sequence(_tlv(4, salt), *(_integer(value) for value in cost))
    scheme = _sequence(
        _tlv(6, bytes.fromhex("2a864886f70d01050d")),  # PBES2
        _sequence(
            _sequence(_tlv(6, bytes.fromhex("2b06010401da47040b")), scrypt),
            _sequence(_tlv(6, bytes.fromhex("60864801650304012a")), _tlv(4, iv)),  # AES-256-CBC
        ),
    )
    text = base64.encodebytes(_sequence(scheme, _tlv(4, encrypted))).replace(b"\n", b"")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    head = f"cuntong-authority: {label.authority}\ncuntong-name: {label.name}\ncuntong-key-id: {label.key_id}\n"
    return b"\n".join(
        (
            head.encode(),
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
            *lines,
            b"-----END ENCRYPTED PRIVATE KEY-----",
            b"",
        )
    )


def write_key(path: Path, key: PrivateKey, passphrase: str, *, authority: str, name: str) -> None:
    """Write a new key file (mode 0600); one that is there is never overwritten.

    Raises:
        AuthorityError: `keys.file-exists`.
        OSError: nothing is left behind.
    """
    if path.exists():
        raise AuthorityError(
            "keys.file-exists",
            N_("{file} exists already. Choose another folder, or move it away if it's not needed."),
            file=str(path),
        )
    label = KeyLabel(authority, name, key_id(key))
    write_atomically(path, encrypt_key(key, passphrase, label), mode=0o600)


def read_label(path: Path) -> KeyLabel | None:
    """What a file's label says, or None when it isn't a key file of ours."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES)
    except OSError:
        return None
    head = data.partition(b"-----BEGIN")[0]
    found = {match[1]: match[2].decode(errors="replace") for match in _LABEL.finditer(head)}
    if set(found) != {b"authority", b"name", b"key-id"}:
        return None
    return KeyLabel(found[b"authority"], found[b"name"], found[b"key-id"])


def load_key(path: Path, passphrase: str | None) -> PrivateKey:
    """Read a key file.

    Args:
        path: PEM, with or without a label.
        passphrase: None for a key that isn't encrypted (the online key).

    Raises:
        AuthorityError: `keys.unreadable`, `keys.damaged`, `keys.wrong-passphrase`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise AuthorityError(
            "keys.unreadable",
            N_("The key file {file} can't be read: {reason}."),
            fault=Fault.SYSTEM,
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    is_encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data
    if is_encrypted != (passphrase is not None) or len(data) > MAX_KEY_FILE_BYTES:
        raise _damaged(path)
    secret = None if passphrase is None else _passphrase_bytes(passphrase)
    try:
        key = load_pem_private_key(data, secret)
        checked_public_key(key.public_key())
    except (ValueError, TypeError, CuntongError):
        # CBC isn't authenticated: one wrong passphrase in 256 gives garbage instead of a padding error. So it's
        # the passphrase's fault unless the file itself isn't whole.
        if secret is not None and _is_whole(data):
            raise AuthorityError(
                "keys.wrong-passphrase",
                N_("The passphrase for {file} is wrong. Nothing was changed."),
                file=str(path),
            ) from None
        raise _damaged(path) from None
    return key  # type: ignore[return-value]  # checked_public_key allows only these two types.


def ask_passphrase(source: PassphraseSource, path: Path) -> str:
    """Ask for the passphrase of one key file."""
    label = read_label(path)
    if label is None:
        return source.ask(_("Passphrase for {file}", file=str(path)))
    return source.ask(
        _(
            "Passphrase for the key {name} of {authority} ({file})",
            name=label.name,
            authority=label.authority,
            file=str(path),
        )
    )


class KeyRing:
    """The sticks that lie on the table: finds keys by id, and decrypts them when they are needed."""

    def __init__(self, folders: Sequence[Path], passphrases: PassphraseSource) -> None:
        """Look at the labels on the sticks; nothing is decrypted yet.

        Raises:
            AuthorityError: `keys.no-stick` when a folder isn't there.
        """
        self.folders = tuple(folders)
        self._passphrases = passphrases
        self._known: dict[Path, list[str]] = {}
        self._files: dict[str, KeyFile] = {}
        for folder in self.folders:
            for file in sticks_keys(folder):
                self._files.setdefault(file.label.key_id, file)

    def find(self, wanted: str) -> KeyFile | None:
        """The key file with this id, if a stick has it."""
        return self._files.get(wanted)

    def require(self, wanted: str, name: str) -> KeyFile:
        """Like `find`, for a key that must be there.

        Raises:
            AuthorityError: `keys.not-on-stick`.
        """
        file = self.find(wanted)
        if file is None:
            raise AuthorityError(
                "keys.not-on-stick",
                N_(
                    "The key {name} (id {id}…) is not in {folders}. Insert the right stick and name it with --keys."
                ),
                name=name,
                id=wanted[:8],
                folders=", ".join(str(folder) for folder in self.folders) or "--keys",
            )
        return file

    def private_key(self, wanted: str, name: str) -> PrivateKey:
        """Decrypt a key; a passphrase that opened another key of the same stick is tried first.

        Args:
            wanted: Key id.
            name: What to call it when it is missing.

        Raises:
            AuthorityError: `keys.not-on-stick`, `keys.wrong-passphrase`, `keys.damaged`.
        """
        file = self.require(wanted, name)
        known = self._known.setdefault(file.path.parent.resolve(), [])
        for passphrase in known:
            try:
                return self._open(file, passphrase)
            except AuthorityError as error:
                if error.code != "keys.wrong-passphrase":
                    raise
        for left in reversed(range(self._passphrases.attempts)):
            passphrase = ask_passphrase(self._passphrases, file.path)
            try:
                key = self._open(file, passphrase)
            except AuthorityError as error:
                if error.code != "keys.wrong-passphrase" or not left:
                    raise
            else:
                known.append(passphrase)
                return key
        raise AssertionError

    def signer(self, wanted: str, name: str) -> CryptoSigner:
        """A TUF signer; errors as `private_key`."""
        return CryptoSigner(self.private_key(wanted, name))

    def check_quorum(self, keys: Mapping[str, str], threshold: int, role: str) -> list[str]:
        """Choose enough keys of a role, from as many different sticks as there are. Nothing is decrypted.

        Args:
            keys: Key id -> name.
            threshold: How many are needed.
            role: What to call the role.

        Returns:
            `threshold` key ids.

        Raises:
            AuthorityError: `keys.not-on-stick` or `keys.no-quorum` when too few are there, `keys.same-stick` when several are
                needed and all of them lie on one stick: the quorum shall not fit in one pocket.
        """
        by_stick: dict[Path, list[str]] = {}
        for wanted in keys:
            file = self.find(wanted)
            if file is not None:
                by_stick.setdefault(file.path.parent.resolve(), []).append(wanted)
        count = sum(map(len, by_stick.values()))
        if not count and threshold == 1:
            raise AuthorityError(
                "keys.not-on-stick",
                N_(
                    "No key for {role} ({names}) is in {folders}. Insert the right stick and name it with --keys."
                ),
                role=role,
                names=", ".join(keys.values()),
                folders=", ".join(str(folder) for folder in self.folders) or "--keys",
            )
        if count < threshold:
            missing = [name for wanted, name in keys.items() if wanted not in self._files]
            raise AuthorityError(
                "keys.no-quorum",
                N_(
                    "{role} needs {threshold} keys, and the sticks given hold {count}. Insert another stick (missing: {missing})."
                ),
                role=role,
                threshold=threshold,
                count=count,
                missing=", ".join(missing),
            )
        if threshold > 1 and len(by_stick) < 2:
            raise AuthorityError(
                "keys.same-stick",
                N_(
                    "{role} needs {threshold} keys from different sticks, but {folder} holds them all. Keep them on separate sticks."
                ),
                role=role,
                threshold=threshold,
                folder=str(next(iter(by_stick))),
            )
        chosen: list[str] = []
        while len(chosen) < threshold:
            for found in by_stick.values():
                if found and len(chosen) < threshold:
                    chosen.append(found.pop(0))
        return chosen

    def quorum(self, keys: Mapping[str, str], threshold: int, role: str) -> list[CryptoSigner]:
        """Signers for enough keys of a role; errors as `check_quorum` and `private_key`."""
        chosen = self.check_quorum(keys, threshold, role)
        return [self.signer(wanted, keys[wanted]) for wanted in chosen]

    def _open(self, file: KeyFile, passphrase: str) -> PrivateKey:
        key = load_key(file.path, passphrase)
        if key_id(key) != file.label.key_id:
            raise _damaged(file.path)
        return key


def sticks_keys(folder: Path) -> list[KeyFile]:
    """The labelled key files directly in a stick's folder, by name.

    Raises:
        AuthorityError: `keys.no-stick`.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise AuthorityError(
            "keys.no-stick",
            N_("The folder {folder} can't be read ({reason}). Is the stick inserted?"),
            fault=Fault.USAGE,
            folder=str(folder),
            reason=error.strerror or str(error),
        ) from error
    found = []
    for path in paths[:MAX_FILES_ON_STICK]:
        label = read_label(path)
        if label is not None:
            found.append(KeyFile(path, label))
    return found


def _damaged(path: Path) -> AuthorityError:
    return AuthorityError(
        "keys.damaged",
        N_("{file} is not a key file that can be used here, or it's damaged. Use its copy."),
        fault=Fault.CONTENT,
        file=str(path),
    )


def _is_whole(data: bytes) -> bool:
    """True when the encrypted PEM block holds one complete DER sequence."""
    match = _PEM.search(data)
    try:
        der = base64.b64decode(match[1]) if match else b""
    except ValueError:
        return False
    if len(der) < 4 or der[0] != 0x30 or der[1] < 0x80:
        return False
    start = 2 + (der[1] & 0x7F)
    return len(der) == start + int.from_bytes(der[2:start], "big")


def _passphrase_bytes(passphrase: str) -> bytes:
    # Keyboards and systems compose characters differently; the same passphrase shall open the stick anywhere.
    return unicodedata.normalize("NFC", passphrase).encode()


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _sequence(*items: bytes) -> bytes:
    return _tlv(0x30, b"".join(items))


def _integer(value: int) -> bytes:
    return _tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))
