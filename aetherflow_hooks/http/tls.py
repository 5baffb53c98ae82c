"""TLS: what we speak it with, and how its connections are read."""

import ssl
import tempfile
from typing import Any

NOTHING = -1  # bytes; 0 would be the end


class Tls(ssl.SSLObject):
    """A connection's TLS, which says without an error that nothing is there to be read.

    The event loops read until nothing is there, so once behind each answer; and to raise an error,
    and take it through their compiled code, costs more than to decrypt the answer. Both asyncio and
    uvloop go on at a count that is not positive, and take only 0 for the end; so it is told to
    those who read into a buffer.
    """

    incoming: ssl.MemoryBIO | None = None  # what came and was not decrypted yet

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  as there
        """Read up to `len` bytes; into the `buffer`, if there is one."""
        came = self.incoming
        if buffer is None or came is None or came.pending or came.eof or self.pending():
            return super().read(len, buffer)
        return NOTHING


class Context(ssl.SSLContext):
    """Makes `Tls`."""

    sslobject_class = Tls

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Make the TLS of a connection, of which `incoming` is what comes."""
        made = super().wrap_bio(incoming, *args, **kwargs)
        if isinstance(made, Tls):
            made.incoming = incoming
        return made


def make_tls(certificate: str) -> ssl.SSLContext:
    """Make a context that shows a `certificate`, a PEM with its key, where there is one.

    By hand: `create_default_context` would honour SSLKEYLOGFILE.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    if certificate:
        # Python reads it from a file only; this one has no name, or none for longer than that.
        with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
            file.write(certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context
