"""The README's snippets run."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from a2al_trio import HostConfig, Identity, open_host
from a2al_trio.quic import Credentials

README = Path(__file__).parent.parent / "README.md"


def snippets() -> dict[str, Any]:
    """Run all Python blocks of the README in one namespace."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    return namespace


async def test_connect_and_accept_snippets(no_leaks: None) -> None:
    readme = snippets()
    me = Identity.generate(os.urandom)
    loopback = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    with trio.fail_after(20):
        async with open_host(Identity.generate(os.urandom), loopback) as seed, trio.open_nursery() as nursery:
            bootstrap = (str(seed.dht_address),)
            config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=bootstrap)
            nursery.start_soon(readme["serve"], me, config)
            while not await seed.find_records(me.address):
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert await readme["call"](me.address, list(bootstrap)) == b"hello"
            nursery.cancel_scope.cancel()


async def test_http_snippet(no_leaks: None) -> None:
    readme = snippets()
    loopback = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    with trio.fail_after(20):
        async with (
            open_host(Identity.generate(os.urandom), loopback) as callee,
            open_host(Identity.generate(os.urandom), loopback, bootstrap=[str(callee.dht_address)]) as caller,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(readme["serve_app"], callee)
            while not await caller.find_records(callee.address):
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert await readme["ask_who_i_am"](caller, callee.address) == str(caller.address)
            nursery.cancel_scope.cancel()


def authority_and_leaf(host: str) -> tuple[bytes, Credentials]:
    """A root certificate (PEM), and credentials it vouches for."""
    now = datetime.datetime.now(tz=datetime.UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test root")])

    def builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        public = key.public_key()
        issued = x509.CertificateBuilder(root_name, subject, public, x509.random_serial_number())
        return (
            issued.not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    root = (
        builder(root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        builder(x509.Name([]), leaf_key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    credentials = Credentials(chain=(leaf.public_bytes(Encoding.DER),), private_key=leaf_key)
    return root.public_bytes(Encoding.PEM), credentials


async def test_quic_alone_snippet(no_leaks: None) -> None:
    readme = snippets()
    roots, credentials = authority_and_leaf("example.test")
    with trio.fail_after(20):
        assert await readme["quic_round_trip"](credentials, roots) == b"any Trio program"
