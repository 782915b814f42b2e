"""The control link without I/O (SPEC 6): the theory of operation stands in `states.py`."""
