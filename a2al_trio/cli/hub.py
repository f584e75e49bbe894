"""`a2al-trio hub`: run a signaling hub until interrupted."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import attrs
import click
import trio

from a2al_trio.cli.running import run_async
from a2al_trio.cli.telling import json_option, print_json, tell
from a2al_trio.errors import ConfigurationError
from a2al_trio.scopes import open_service_nursery
from a2al_trio.signaling import Hub, HubLimits, HubStats, serve_hub

__all__ = ["hub"]

REPORT_INTERVAL = 30.0
USUAL_PORT = 4121
LIMITS = HubLimits()


@click.command()
@click.option("--listen", default=f":{USUAL_PORT}", show_default=True, metavar="[HOST]:PORT", help="TCP address.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM chain: serve wss:// instead of ws://.")
@click.option("--certificate-key", type=click.Path(path_type=Path), help="Its private key, if not in the same file.")
@click.option(
    "--max-connections", default=LIMITS.sockets, show_default=True, type=click.IntRange(1), help="Agents at a time."
)
@click.option(
    "--max-per-address",
    default=LIMITS.sockets_per_address,
    show_default=True,
    type=click.IntRange(1),
    help="Those of one IP address.",
)
@json_option
@run_async
async def hub(
    listen: str,
    certificate: Path | None,
    certificate_key: Path | None,
    max_connections: int,
    max_per_address: int,
    as_json: bool,
) -> None:
    """Run a hub, where agents behind NATs are called.

    Runs until interrupted; prints its URL, and says how much is going on.
    """
    host, port = parse_listen(listen)
    tls = await trio.to_thread.run_sync(load_tls, certificate, certificate_key)
    server = Hub(HubLimits(sockets=max_connections, sockets_per_address=max_per_address))
    async with open_service_nursery("hub") as nursery:
        addresses = await nursery.start(partial(serve_hub, host, port, hub=server, tls=tls))
        urls = [f"{'ws' if tls is None else 'wss'}://{address}" for address in addresses]
        if as_json:
            print_json(urls=urls)
        else:
            click.echo("\n".join(urls))
        shown: HubStats | None = None
        while True:
            if server.stats != shown:
                shown = server.stats
                tell(
                    "agents",
                    f"{shown.aids_registered}, calls {shown.sessions_active} now, "
                    f"{shown.sessions_total} in all, {shown.noagent_total} for absent agents",
                )
                if as_json:
                    print_json(**attrs.asdict(shown))
            await trio.sleep(REPORT_INTERVAL)


def parse_listen(text: str) -> tuple[str | None, int]:
    """Read `host:port`, `[::1]:port`, `:port` or `port`; raises `ConfigurationError`."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF) or (":" in host and host[0] != "["):
        raise ConfigurationError(f"--listen: {text!r} is not HOST:PORT; write :{USUAL_PORT} to listen on all addresses")
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
        what = "not a certificate chain in PEM and its key" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"cannot use the certificate {certificate}: {what}") from error
    return context
