"""Trust: names, signed custom fields and the rules over TUF (SPEC 4, 5.4)."""
