"""What is wrong with a bundle."""

from __future__ import annotations

from cuntong_protocol.errors import CuntongError, Fault


class BundleError(CuntongError):
    """A folder, metadata file, descriptor, torrent, index or pack that must be refused."""

    fault = Fault.CONTENT
