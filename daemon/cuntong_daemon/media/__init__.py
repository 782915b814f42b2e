"""Disks and discs by post: what they bring gets in, what was got is told, what a place lacks is offered (SPEC 12)."""
