"""The sender's signatures: made with the key of its node certificate, and checked with that alone (SPEC 11.2)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from cuntong_protocol.datacast.packets import Sign, Verify

_HALF = 32


def signer(key: PrivateKeyTypes) -> Sign:
    """Signatures of 64 bytes with an Ed25519 or P-256 key.

    Raises:
        TypeError: it is another kind of key.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    if isinstance(key, ec.EllipticCurvePrivateKey):

        def sign(data: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")

        return sign
    raise TypeError(type(key))


def verifier(key: PublicKeyTypes) -> Verify:
    """Checks signatures that `signer` makes.

    Raises:
        TypeError: it is another kind of key.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):

        def verify(data: bytes, signature: bytes) -> bool:
            try:
                key.verify(signature, data)
            except InvalidSignature:
                return False
            return True

        return verify
    if isinstance(key, ec.EllipticCurvePublicKey):

        def verify_ecdsa(data: bytes, signature: bytes) -> bool:
            r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
            try:
                key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                return False
            return True

        return verify_ecdsa
    raise TypeError(type(key))
