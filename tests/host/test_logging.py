"""What a host says in its log: levels and names, and never a secret."""

from __future__ import annotations

import logging

import pytest
import trio

from a2al_trio.errors import A2alError
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

ALICE, BOB = identity(2), identity(3)
TOKEN = "ticket-that-nobody-else-may-have"
BODY = b"a note for two"


async def test_nothing_secret_is_logged(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with (
            open_simnet(seed=1) as net,
            open_sim_host(net.host("alice"), ALICE) as alice,
            open_sim_host(net.host("bob"), BOB, seeds=(alice,)) as bob,
        ):
            alice.access = lambda _local, _remote, _tokens: False
            await alice.publish()
            sent = await bob.mailbox.send(ALICE.address, BODY)
            await alice.mailbox.poll()
            assert bob.mailbox.decrypt([sent.record]) == [], "not for him, which the log says"
            async with bob.connect(ALICE.address) as connection:
                with pytest.raises(A2alError):
                    await connection.open_service_stream(TOKEN)
            said = repr((ALICE, alice.connections, bob.debug("connections"), caplog.text))
    assert caplog.records
    assert all(record.name.startswith(("a2al_trio", "trio")) for record in caplog.records)
    for secret in (TOKEN, BODY.decode(), ALICE.key.seed.hex(), str(ALICE.key.seed), BOB.key.seed.hex()):
        assert secret not in said
