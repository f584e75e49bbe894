"""Streams to servers by name: TCP, and TLS over it."""

from __future__ import annotations

import ssl

import trio

__all__ = ["open_stream"]


async def open_stream(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, local_host: str | None = None
) -> trio.abc.Stream:
    """Connect, trying all addresses of the name; with a context for TLS, also shake hands, for that name.

    The end of the stream may come without TLS saying so: what goes over it has to tell its own end, as HTTP,
    WebSockets and STUN do. Raises OSError, `trio.BrokenResourceError` for a failed handshake, or UnicodeError for what
    cannot be a name.
    """
    stream = await trio.open_tcp_stream(host, port, local_address=local_host)
    if tls is None:
        return stream
    secure = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure
