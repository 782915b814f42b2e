"""Payloads over BitTorrent: the only package that knows libtorrent."""
