"""Making a node's key and its request (SPEC 5.5)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from cuntong_daemon.files import write_atomically
from cuntong_daemon.i18n import _
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    KeyType,
    PrivateKey,
    load_private_key,
    new_key,
    private_key_pem,
)
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    EnrolmentError,
    Request,
    decode_request,
    encode_request,
    make_request,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.paper_text import qr_text
from cuntong_protocol.texts import N_
from cuntong_tools.output import console, wrap_cells
from cuntong_tools.qr import make_qr


def pending_request(files: KeyFiles) -> Request | None:
    """The request of this computer that waits for its pack; None when there is none."""
    try:
        return decode_request(files.pending_request.read_text(encoding="ascii"))
    except (FileNotFoundError, UnicodeDecodeError, EnrolmentError):
        return None


def write_request(
    paths: DataPaths,
    code: Division,
    *,
    site: str,
    contact: str,
    equipment: str,
    link: str,
    kind: KeyType,
    now: datetime,
) -> str:
    """Make a request and keep its key; as long as no pack came, the same key is used again.

    Returns:
        The request as text.

    Raises:
        EnrolmentError: `request.bad-field`, `node.bad-key`; nothing was written.
    """
    files = KeyFiles(paths.keys)
    key = _pending_key(files, kind)
    request = make_request(
        key,
        code,
        site=site,
        contact=contact,
        equipment=equipment,
        link=link,
        made_at=max(int(now.timestamp()), 0),
    )
    text = encode_request(request)
    paths.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.keys.chmod(0o700)
    write_atomically(files.pending_key, private_key_pem(key), mode=0o600)
    write_atomically(files.pending_request, text.encode(), mode=0o600)
    return text


def _pending_key(files: KeyFiles, kind: KeyType) -> PrivateKey:
    try:
        return load_private_key(files.pending_key.read_bytes())
    except FileNotFoundError:
        return new_key(kind)


def show_qr(text: str, picture: Path | None) -> None:
    """Draw a request as a QR code: on the terminal, or as a picture to print.

    Raises:
        EnrolmentError: `request.no-qr` when the extra isn't installed.
    """
    code = make_qr(qr_text(text))
    if code is None:
        raise EnrolmentError(
            "request.no-qr",
            N_("QR codes need one more package. Install it: pip install 'cuntong[qr]'"),
            fault=Fault.CONFIG,
        )
    if picture is not None:
        code.save(picture)
        return
    width, columns = code.columns, console().width
    if width > columns:
        text = _(
            "The QR code needs {width} columns, the window has {columns}. Save it as a picture instead: --qr-file request.png",
            width=width,
            columns=columns,
        )
        click.echo("\n".join(wrap_cells(text, columns)))
        return
    code.show()
