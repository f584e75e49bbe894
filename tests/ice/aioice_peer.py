"""An aioice agent as a process: credentials, candidates and data as JSON lines on its standard streams."""

from __future__ import annotations

import asyncio
import json
import sys

import aioice
import aioice.ice

# There is nothing but loopback to meet on, which it would not offer by itself.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def main(controlling: bool, echoes: int) -> None:
    connection = aioice.Connection(ice_controlling=controlling)
    await connection.gather_candidates()
    tell(type="cred", ufrag=connection.local_username, pwd=connection.local_password)
    for candidate in connection.local_candidates:
        tell(type="cand", candidate=candidate.to_sdp())
    tell(type="eoc")
    loop = asyncio.get_running_loop()
    while True:
        message = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
        if message["type"] == "cred":
            connection.remote_username, connection.remote_password = message["ufrag"], message["pwd"]
        elif message["type"] == "cand":
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(message["candidate"]))
        else:
            await connection.add_remote_candidate(None)
            break
    await connection.connect()
    for _ in range(echoes):
        await connection.send(b"echo " + await connection.recv())
    await loop.run_in_executor(None, sys.stdin.readline)
    await connection.close()


asyncio.run(main(sys.argv[1] == "controlling", int(sys.argv[2])))
