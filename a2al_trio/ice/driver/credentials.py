"""Credentials for a TURN server at the moment they are needed (spec 06 §11.3)."""

from __future__ import annotations

import time
from typing import Final

import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.ice.errors import RelayFailed
from a2al_trio.ice.servers import (
    HmacCredentials,
    RestCredentials,
    StaticCredentials,
    TurnServer,
    decode_rest_answer,
)

__all__ = ["current_credentials"]

_REST_LIMIT: Final = 5.0
_REST_ANSWER_BYTES: Final = 65_536


async def current_credentials(server: TurnServer) -> StaticCredentials:
    """Return the user name and password to use now; raises `RelayFailed` if a REST service does not give them."""
    match server.credentials:
        case None:
            found = server.address.credentials
            assert found is not None, "the address of a server without credentials does not parse"
            return found
        case StaticCredentials() as static:
            return static
        case HmacCredentials() as shared:
            return shared.at(int(time.time()))
        case RestCredentials() as rest:
            with trio.move_on_after(_REST_LIMIT):
                return await _ask(rest)
            raise RelayFailed(f"the credential service {rest.url} did not answer within {_REST_LIMIT:.0f} s")


async def _ask(rest: RestCredentials) -> StaticCredentials:
    try:
        import httpx  # an extra: only those who use REST credentials need it
    except ImportError as error:
        raise ConfigurationError("TURN credentials by REST need httpx: pip install 'a2al-trio[turn-rest]'") from error
    headers = {"Authorization": rest.authorization} if rest.authorization else {}
    body = bytearray()
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=None) as client,  # the cancel scope is ours
            client.stream("POST", rest.url, headers=headers) as answer,
        ):
            if answer.status_code >= 300:
                raise RelayFailed(f"the credential service {rest.url} answered {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _REST_ANSWER_BYTES:
                    break
    except httpx.HTTPError as error:
        raise RelayFailed(f"the credential service {rest.url} cannot be asked: {error}") from error
    return decode_rest_answer(bytes(body))
