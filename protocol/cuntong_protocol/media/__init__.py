"""Disks and discs by post: volumes, and the receipts that come back (SPEC 12)."""
