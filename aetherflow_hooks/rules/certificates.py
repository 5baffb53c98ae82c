"""Certificates: what we show to an endpoint that asks who calls (mutual TLS)."""

from datetime import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from aetherflow_hooks.errors import InputRefused

PEM_CHARACTERS_MAX = 65_536


class Certificate(NamedTuple):
    """What a client's certificate says."""

    subject: str
    expires_at: datetime


def read_certificate(pem: str) -> Certificate:
    """Read a certificate, the chain behind it if there is one, and its private key.

    Raises:
        InputRefused: something is missing, the key is encrypted or belongs to another certificate.
            The message holds nothing of it.
    """
    if len(pem) > PEM_CHARACTERS_MAX:
        raise InputRefused(f"a client's certificate has at most {PEM_CHARACTERS_MAX} characters")
    try:
        first, *_ = x509.load_pem_x509_certificates(pem.encode("ascii"))
        key = serialization.load_pem_private_key(pem.encode("ascii"), password=None)
        own, certified = (
            public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            for public in (key.public_key(), first.public_key())
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputRefused(
            "a client's certificate is a PEM file of certificates, the client's first, and its "
            "private key without a password"
        ) from None
    if own != certified:
        raise InputRefused("the private key is not that of the first certificate")
    return Certificate(first.subject.rfc4514_string()[:256], first.not_valid_after_utc)
