"""Bundles: metadata, descriptor, torrent, index, packs and their rules (SPEC 3)."""
