"""Key exchange against OpenSSL, which knows nothing of QUIC: its encrypted answer must open with our secrets.

That takes the ClientHello, the HelloRetryRequest if any, the shared secret, the transcript and the key schedule to
agree. OpenSSL sends no transport parameters, so there, and not before, our client gives up.
"""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from OpenSSL import SSL

from a2al_trio.quic.packet_crypto import VERSION_1
from a2al_trio.quic.tls import AlertDescription, CipherSuite, KeysReady, Level, NamedGroup, TlsAlert, TlsClient
from a2al_trio.quic.tls.codepoints import HandshakeType
from a2al_trio.quic.tls.hkdf import HmacKey
from tests.quic.tls_support import client_tls, credentials, drbg

HANDSHAKE_RECORD, ENCRYPTED_RECORD = 22, 23


def openssl_server(*, only_p256: bool) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    ours = credentials("p256")
    context.use_certificate(x509.load_der_x509_certificate(ours.chain[0]))
    context.use_privatekey(ours.private_key)
    context.set_alpn_select_callback(lambda connection, offered: offered[0])
    if only_p256:
        context.set_tmp_ecdh(ec.SECP256R1())
    connection = SSL.Connection(context)
    connection.set_accept_state()
    return connection


def exchange(server: SSL.Connection, hello: bytes) -> list[tuple[bytes, bytes]]:
    """Send a ClientHello in a TLS record and return the records that answer, as headers and bodies."""
    server.bio_write(bytes((HANDSHAKE_RECORD, 3, 1)) + len(hello).to_bytes(2, "big") + hello)
    with pytest.raises(SSL.WantReadError):
        server.do_handshake()
    answer = server.bio_read(65_536)
    records = []
    while answer:
        end = 5 + int.from_bytes(answer[3:5], "big")
        records.append((answer[:5], answer[5:end]))
        answer = answer[end:]
    return records


def open_record(keys: KeysReady, number: int, header: bytes, body: bytes) -> bytes:
    """Open a record of TLS over TCP (RFC 8446 §5.2)."""
    derive = HmacKey(keys.suite.hash_name, keys.secret).expand_label
    key = derive("key", b"", keys.suite.key_size)
    nonce = int.from_bytes(derive("iv", b"", 12), "big") ^ number
    aead = AESGCM(key) if keys.suite.is_aes else ChaCha20Poly1305(key)
    content = aead.decrypt(nonce.to_bytes(12, "big"), body, header).rstrip(b"\0")
    assert content[-1] == HANDSHAKE_RECORD
    return content[:-1]


@pytest.mark.parametrize("suite", list(CipherSuite))
@pytest.mark.parametrize("group", list(NamedGroup))
@pytest.mark.parametrize("retried", [False, True])
def test_the_answer_of_openssl_opens(suite: CipherSuite, group: NamedGroup, retried: bool) -> None:
    if retried and group is not NamedGroup.SECP256R1:
        group, shares = NamedGroup.SECP256R1, (group,)
    else:
        shares = (NamedGroup.X25519,) if retried else (group,)
    settings = client_tls(suites=(suite,), groups=tuple({*shares, group}), key_shares=shares)
    client = TlsClient(
        settings,
        server_name="example.test",
        transport_parameters=b"parameters",
        entropy=drbg(f"{suite} {group}"),
        quic_version=VERSION_1,
    )
    client.start(0.0)
    server = openssl_server(only_p256=retried)
    hellos = 0
    records: list[tuple[bytes, bytes]] = []
    while output := client.take_output(Level.INITIAL):
        hellos += 1
        records = exchange(server, output)
        client.receive(Level.INITIAL, records.pop(0)[1], 0.0)
    assert hellos == (2 if retried else 1)

    events = list(iter(client.next_event, None))
    keys = next(event for event in events if isinstance(event, KeysReady) and not event.sending)
    assert keys.suite is suite
    encrypted = [record for record in records if record[0][0] == ENCRYPTED_RECORD]
    flight = b"".join(open_record(keys, number, *record) for number, record in enumerate(encrypted))
    assert flight[0] == HandshakeType.ENCRYPTED_EXTENSIONS
    with pytest.raises(TlsAlert, match="transport parameters") as caught:
        client.receive(Level.HANDSHAKE, flight, 0.0)
    assert caught.value.alert is AlertDescription.MISSING_EXTENSION
    assert client.alpn == "test"
