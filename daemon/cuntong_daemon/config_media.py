"""`[media]` of a node's configuration: where disks and discs are mounted."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cuntong_protocol.texts import N_

MAX_WATCHED = 16

_Folder = Annotated[str, msgspec.Meta(pattern=r"\A/", max_length=1000)]


class MediaSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[media]`.

    Attributes:
        watch: Folders below which media are mounted: volumes and receipts there are imported by themselves.
    """

    watch: Annotated[list[_Folder], msgspec.Meta(max_length=MAX_WATCHED)] = []


MEDIA_REASONS: dict[str, str] = {
    "media.watch": N_(
        "{file}: {key} must be a list of folders in quotes, such as ['/media', '/run/media']."
    ),
}
