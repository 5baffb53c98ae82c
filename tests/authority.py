"""An authority that certifies receivers, and whatever else a test wants certified."""

import datetime as dt
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aetherflow_hooks.dev.receiver import Receiver

DAY = dt.timedelta(days=1)


class Authority:
    """Issues certificates into files of a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *alternatives: str, days: int = 1) -> Path:
        """Certify a name, for so many days from yesterday; give a file with chain and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        since = dt.datetime.now(dt.UTC) - DAY
        known: list[x509.GeneralName] = []
        for text in (name, *alternatives):
            try:
                known.append(x509.IPAddress(ip_address(text)))
            except ValueError:
                known.append(x509.DNSName(text))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since - DAY)
            .not_valid_after(since + days * DAY + DAY / 2)
            .add_extension(x509.SubjectAlternativeName(known), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"{name}-{days}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return file

    def receiver(
        self, *names: str, days: int = 1, clients_of: "Authority | None" = None
    ) -> Receiver:
        """Give a receiver that speaks TLS; of clients it wants what `clients_of` has issued."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*(names or ("localhost", "127.0.0.1")), days=days))
        if clients_of is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_of.file)
        return Receiver(ssl=context)

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Let engines that are started meanwhile trust this authority."""
        with patch.dict(os.environ, {"SSL_CERT_FILE": str(self.file)}):
            yield
