"""How fast messages may come: a token bucket that both ends keep, the receiver with more patience (SPEC 6.2)."""

from __future__ import annotations

SEND_TOKENS_PER_S = 200.0
SEND_BURST = 1_000.0
RECEIVE_TOKENS_PER_S = 400.0
"""Twice what an honest sender uses."""
RECEIVE_BURST = 15_000.0
"""An honest sender's tokens of one minute: so much can arrive at once after a link stood still that long.
As the smallest messages these cost the receiver a fifth of a second."""
BYTES_PER_TOKEN = 1024
"""A long message costs more than one token, in the measure of the work it makes."""


def cost(length: int) -> float:
    """Tokens for a message of so many bytes."""
    return 1.0 + length / BYTES_PER_TOKEN


class TokenBucket:
    """Fills at a fixed rate up to a burst; may be overdrawn by one message."""

    __slots__ = ("_burst", "_rate_per_s", "_tokens", "_updated")

    def __init__(self, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, tokens: float, now: float) -> bool:
        """Take tokens; False, and nothing taken, when the bucket is empty."""
        if self.wait_s(now) > 0:
            return False
        self._tokens -= tokens
        return True

    def wait_s(self, now: float) -> float:
        """Seconds until something may be taken; 0 when it may be now."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate_per_s)
        self._updated = now
        # A tiny debt counts as none: rounding must not make a waiter wake up too early for ever.
        return 0.0 if self._tokens > -1e-6 else -self._tokens / self._rate_per_s
