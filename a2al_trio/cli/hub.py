"""`a2al-trio hub`: run a signaling hub until interrupted."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import click
import trio

from a2al_trio.cli.common import console, run_async
from a2al_trio.errors import ConfigurationError
from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling import Hub, HubLimits, HubStats, serve_hub

__all__ = ["hub"]

REPORT_INTERVAL = 30.0
USUAL_PORT = 4121


@click.command()
@click.option("--listen", default=f":{USUAL_PORT}", show_default=True, metavar="[HOST]:PORT", help="TCP address.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM chain: serve wss:// instead of ws://.")
@click.option("--certificate-key", type=click.Path(path_type=Path), help="Its private key, if not in the same file.")
@click.option("--max-connections", default=HubLimits().sockets, show_default=True, type=click.IntRange(1))
@click.option("--max-per-address", default=HubLimits().sockets_per_address, show_default=True, type=click.IntRange(1))
@run_async
async def hub(
    listen: str,
    certificate: Path | None,
    certificate_key: Path | None,
    max_connections: int,
    max_per_address: int,
) -> None:
    """Run a hub, where agents behind NATs are called; shows its URL and how much is going on."""
    host, port = parse_listen(listen)
    tls = await trio.to_thread.run_sync(load_tls, certificate, certificate_key)
    server = Hub(HubLimits(sockets=max_connections, sockets_per_address=max_per_address))
    async with open_service_nursery("hub") as nursery:
        addresses = await nursery.start(partial(serve_hub, host, port, hub=server, tls=tls))
        for address in addresses:
            click.echo(f"{'ws' if tls is None else 'wss'}://{address}")
        shown: HubStats | None = None
        while True:
            if server.stats != shown:
                shown = server.stats
                console.print(
                    f"agents {shown.aids_registered}  calls {shown.sessions_active} now, "
                    f"{shown.sessions_total} in all, {shown.noagent_total} for absent agents"
                )
            await trio.sleep(REPORT_INTERVAL)


def parse_listen(text: str) -> tuple[str | None, int]:
    """Read `host:port`, `[::1]:port`, `:port` or `port`; raises `ConfigurationError`."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF) or (":" in host and host[0] != "["):
        raise ConfigurationError(f"{text!r} is not HOST:PORT; write :{USUAL_PORT} to listen on all addresses")
    return host.strip("[]") or None, int(port)


def load_tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Make the server side of TLS; raises `ConfigurationError` if the files are not a certificate and its key."""
    if certificate is None:
        if key is not None:
            raise ConfigurationError("--certificate-key needs --certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the certificate {certificate}: {error}") from error
    return context
