"""TLS: what we speak it with, and how its connections are read."""

import ssl
import tempfile
from collections.abc import Callable
from typing import Any

NOTHING = -1  # bytes; 0 would be the end


class Context(ssl.SSLContext):
    """Makes the TLS of a connection such that it is read and written in the fewest steps."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Make the TLS of a connection, of which `incoming` is what comes."""
        made: Any = super().wrap_bio(incoming, *args, **kwargs)
        # What its methods call, and nothing else; or they themselves, should another release of
        # Python have it by another name.
        inner = getattr(made, "_sslobj", made)
        # The event loops take these two over once, for all that the connection will carry.
        made.read = _reading(inner.read, inner.pending, incoming)
        made.write = inner.write
        return made  # type: ignore[no-any-return]


def _reading(
    decrypt: Callable[..., Any], decrypted: Callable[[], int], incoming: ssl.MemoryBIO
) -> Callable[..., Any]:
    """Give a `read` that says without an error that nothing is there to be read.

    The event loops read until nothing is there, so once behind each answer; and to raise an error,
    and take it through their compiled code, costs more than to decrypt the answer. Both asyncio and
    uvloop go on at a count that is not positive, and take only 0 for the end; so it is told to
    those who read into a buffer.
    """

    def read(len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002  as in SSLObject
        if buffer is None:
            return decrypt(len)
        if incoming.pending or incoming.eof or decrypted():
            return decrypt(len, buffer)
        return NOTHING

    return read


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
