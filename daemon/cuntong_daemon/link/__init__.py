"""The control link to the parent and the children (DESIGN 6): `parent.py`, `server.py`, `session.py`."""
