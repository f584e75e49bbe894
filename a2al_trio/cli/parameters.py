"""What may stand on the command line: addresses of agents, of sockets, of services."""

from __future__ import annotations

import re

import click

from a2al_trio.identity import Address, InvalidAddress
from a2al_trio.net.address import SocketAddress

__all__ = ["AID", "HOST_NAME", "NODE", "SERVICE", "SOCKET_ADDRESS", "TCP_LISTEN", "URL"]

LABEL = re.compile(r"[\w-]{1,63}")


class AidParameter(click.ParamType[Address]):
    """An agent's address, in any of its text forms."""

    name = "aid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse the text, or fail with what is wrong about it."""
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(str(value))
        except InvalidAddress as error:
            self.fail(f"{error}; an AID is what `a2al-trio id` prints", param, ctx)


class SocketAddressParameter(click.ParamType[SocketAddress]):
    """`IP:port`; where nothing but a port makes sense too, that alone."""

    name = "ip:port"

    def __init__(self, *, usual_host: str = "") -> None:
        self.usual_host = usual_host

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> SocketAddress:
        """Parse the text, or fail with what is wrong about it."""
        if isinstance(value, SocketAddress):
            return value
        text = str(value)
        if self.usual_host and text.removeprefix(":").isdecimal():
            text = f"{self.usual_host}:{text.removeprefix(':')}"
        try:
            return SocketAddress.parse(text)
        except ValueError as error:
            self.fail(f"{error}; write IP:port such as 127.0.0.1:4121 or [::1]:4121", param, ctx)


class ServiceParameter(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`, or a port of this machine."""

    name = "service"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Parse the text, or fail with what is wrong about it."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not _is_port(port) or (host and not _is_host(host)):
            self.fail(f"{value!r} is neither a port nor HOST:PORT, such as 8000 or 127.0.0.1:8000", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class NodeParameter(click.ParamType[str]):
    """`HOST:PORT` of a node."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail with what is wrong about it."""
        host, _, port = str(value).rpartition(":")
        if not _is_port(port) or not _is_host(host):
            self.fail(f"{value!r} is not HOST:PORT, such as node.example.org:4121 or 192.0.2.1:4121", param, ctx)
        return str(value)


class HostNameParameter(click.ParamType[str]):
    """A name or an IP address, without a port."""

    name = "host"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail with what is wrong about it."""
        if not _is_host(str(value)):
            self.fail(f"{value!r} is neither a host name nor an IP address; leave out scheme and port", param, ctx)
        return str(value)


class UrlParameter(click.ParamType[str]):
    """The URL of a web page."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail with what is wrong about it."""
        if not str(value).startswith(("http://", "https://")):
            self.fail(f"{value!r} is not a URL; write https://host/path", param, ctx)
        return str(value)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65536


def _is_host(text: str) -> bool:
    bare = text.removeprefix("[").removesuffix("]")
    if ":" in bare:
        try:
            return bool(SocketAddress.parse(f"[{bare}]:1"))
        except ValueError:
            return False
    return all(LABEL.fullmatch(label) for label in bare.removesuffix(".").split("."))


AID = AidParameter()
HOST_NAME = HostNameParameter()
NODE = NodeParameter()
SERVICE = ServiceParameter()
SOCKET_ADDRESS = SocketAddressParameter()
TCP_LISTEN = SocketAddressParameter(usual_host="127.0.0.1")
URL = UrlParameter()
