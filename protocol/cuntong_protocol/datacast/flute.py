"""The compatible mode: files in packets that any FLUTE receiver with RaptorQ reads (RFC 6726, SPEC 11.11).

The native mode leaves out what its signed objects say better: a table of files, and sizes in each packet. A foreign
receiver has nothing but these, so here each packet carries EXT_FTI (RFC 5775 section 4.2, RFC 6330 section 3.3), and
FDT instances, which are objects with TOI 0, name the files. Nothing in this mode is signed, and our own receiver takes
none of it: such packets are longer than `PACKET_BYTES`. It exists so that others can check what we send with
programs that we haven't written.

One file is one object. RFC 6330 section 4.4.1.2 cuts it into source blocks of equal length, none longer than a native
block has symbols; a file of up to 4 MiB is one block, whose symbols are exactly those of the native mode. Each block is
encoded by itself, as if it were an object, and its encoder knows nothing of the other ones.

The FDT goes through RaptorQ like everything else: a table of many symbols gets through a loss of 20 % at once, where
plain repetition (Compact No-Code) needs a dozen rounds.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from cuntong_protocol.bundle.paths import check_paths

from .blocks import BLOCK_BYTES, symbol_count
from .packets import (
    _FIRST_WORD,
    _HEADER,
    MAX_ESI,
    MAX_TOI,
    PAYLOAD_ID_BYTES,
    SYMBOL_BYTES,
    Codepoint,
)

FDT_TOI = 0
MAX_TSI = (1 << 32) - 1
MAX_BLOCKS = 255
"""The number of source blocks, Z, has 8 bits (RFC 6330 section 3.3.3)."""
MAX_FILE_BYTES = MAX_BLOCKS * BLOCK_BYTES
"""Just below 1 GiB."""
MAX_INSTANCE = (1 << 20) - 1

_EXT_FDT = 192
_FLUTE_VERSION = 2
_EXT_FTI = struct.Struct(">BBQBHBH")
"""HET 64 and length in words; F of 40 bits, 8 reserved bits and T of 16; Z, N, Al; padding to whole words."""
_EXT_FTI_TYPE = 64
_SUB_BLOCKS = 1
_ALIGNMENT = 8
_WORD = 4
_NTP_EPOCH = 2_208_988_800
"""1970 in NTP's seconds since 1900."""
_NOT_IN_A_LOCATION = re.compile(r'[ "#%:<>?\[\]^`{|}]')
"""What a URI has no place for, or would read as a scheme, a query or an escape (RFC 3986 section 2)."""


@dataclass(frozen=True, slots=True)
class FluteFile:
    """What an FDT says of a file.

    Attributes:
        toi: Of its object; not 0.
        name: `/`-separated relative path.
        size: In bytes.
        md5: Of its content; the only check that a foreign receiver has.
    """

    toi: int
    name: str
    size: int
    md5: bytes


def flute_file(toi: int, name: str, data: bytes) -> FluteFile:
    """A file that is in memory."""
    # RFC 6726 section 3.4.2 knows no other digest; nothing of ours rests on it.
    return FluteFile(toi, name, len(data), hashlib.md5(data, usedforsecurity=False).digest())


def encode_fdt(files: Iterable[FluteFile], expires_at: int) -> bytes:
    """An FDT instance (RFC 6726 section 3.4.2).

    Names are written as they are, but for what a URI can't hold, which is escaped. Not every receiver undoes
    that: with flute-alc the file `a b` becomes `a%20b`.

    Args:
        files: All that the instance speaks of.
        expires_at: From then on it says nothing more; seconds since 1970.

    Raises:
        BundleError: as `check_paths`; some receivers write wherever a name leads.
    """
    listed = list(files)
    check_paths(file.name for file in listed)
    # NTP's seconds begin anew in 2036, and Expires has only the low 32 bits of them.
    expires = (expires_at + _NTP_EPOCH) & 0xFFFF_FFFF
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<FDT-Instance xmlns="urn:ietf:params:xml:ns:fdt" Expires="{expires}">',
    ]
    for file in listed:
        location = _NOT_IN_A_LOCATION.sub(lambda found: f"%{ord(found[0]):02X}", file.name)
        md5 = base64.b64encode(file.md5).decode()
        lines.append(
            f'<File TOI="{file.toi}" Content-Location={quoteattr(location)}'
            f' Content-Length="{file.size}" Transfer-Length="{file.size}" Content-MD5="{md5}"/>'
        )
    lines.append("</FDT-Instance>\n")
    return "\n".join(lines).encode()


class FluteObject:
    """One object on the air: turns the symbols of its source blocks into packets.

    The order is the sender's. flute-alc gives an object up once it has begun more than 10 MiB of blocks that it can't
    write yet, so a large file goes out block after block, each with as many repair symbols as the loss demands.

    Attributes:
        block_sizes: Bytes of each source block, in order.
    """

    def __init__(self, tsi: int, toi: int, size: int, *, fdt_instance: int | None = None) -> None:
        """Describe an object.

        Args:
            tsi: Of the session.
            toi: `FDT_TOI` for an FDT instance, else that of a file.
            size: In bytes. There are no symbols of nothing, so an empty file can't be sent.
            fdt_instance: Number of the FDT instance, when it is one; one more than that of the one before.

        Raises:
            ValueError: a number is out of range.
        """
        if not (0 <= tsi <= MAX_TSI and 0 <= toi <= MAX_TOI and 1 <= size <= MAX_FILE_BYTES):
            raise ValueError(f"TSI {tsi}, TOI {toi}, {size} bytes")
        if (toi == FDT_TOI) != (fdt_instance is not None):
            raise ValueError(f"TOI {toi} with FDT instance {fdt_instance}")
        self.block_sizes = _partition(size)
        fti = _EXT_FTI.pack(
            _EXT_FTI_TYPE,
            _EXT_FTI.size // _WORD,
            size << 24 | SYMBOL_BYTES,
            len(self.block_sizes),
            _SUB_BLOCKS,
            _ALIGNMENT,
            0,
        )
        extensions = fti if fdt_instance is None else _ext_fdt(fdt_instance) + fti
        word = (_FIRST_WORD | Codepoint.SYMBOL) + (len(extensions) // _WORD << 8)
        self._head = _HEADER.pack(word, 0, tsi, toi) + extensions

    def packet(self, block: int, esi: int, symbol: bytes) -> bytes:
        """The packet for one encoding symbol.

        Args:
            block: Which source block it belongs to.
            esi: Its number among those of the block.
            symbol: `SYMBOL_BYTES`, of an encoder for this block alone. Source symbols are the block's own bytes; the
                last one is filled with zeros.

        Raises:
            ValueError: there is no such block or number, or the symbol hasn't the right length.
        """
        if not (0 <= block < len(self.block_sizes) and 0 <= esi <= MAX_ESI):
            raise ValueError(f"source block {block}, symbol {esi}")
        if len(symbol) != SYMBOL_BYTES:
            raise ValueError(f"a symbol of {len(symbol)} bytes")
        # The payload ID of RFC 6330 section 3.2: block of 8 bits, symbol of 24.
        payload_id = (block << 24 | esi).to_bytes(PAYLOAD_ID_BYTES, "big")
        return b"".join([self._head, payload_id, symbol])


def _partition(size: int) -> tuple[int, ...]:
    """Cut an object into as few source blocks as can be, the longer ones first (RFC 6330 section 4.4.1.2)."""
    symbols = symbol_count(size)
    blocks = -(-size // BLOCK_BYTES)
    short, long_ones = divmod(symbols, blocks)
    lengths = [short + 1] * long_ones + [short] * (blocks - long_ones)
    whole = [length * SYMBOL_BYTES for length in lengths]
    # The encoder fills the last symbol with zeros.
    return (*whole[:-1], size - sum(whole[:-1]))


def _ext_fdt(instance: int) -> bytes:
    """EXT_FDT (RFC 6726 section 3.4.1)."""
    if not 0 <= instance <= MAX_INSTANCE:
        raise ValueError(f"FDT instance {instance}")
    return (_EXT_FDT << 24 | _FLUTE_VERSION << 20 | instance).to_bytes(_WORD, "big")
