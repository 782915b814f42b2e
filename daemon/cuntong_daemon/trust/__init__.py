"""The trust layer: python-tuf over a spool, durable floors, and the federation's view (SPEC 4)."""
