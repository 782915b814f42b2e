"""Payloads on the disk: verified, linked, shown and removed. Knows nothing of peers."""
