"""The satellite datacast: packets, blocks and the objects that a sender puts on the air (SPEC 11)."""
