"""A word from one node to another and one back: whether a connection gets through, and to this run.

Nothing that a stranger sends is looked into: what does not begin with the run's own random word is closed.
Both words are random, and travel to the nodes through Ray.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from asyncio import Server, StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from rlstack.ports import listen

WORD_BYTES = 16


class Words(NamedTuple):
    """The words of one check; a listener answers the first one with the second one."""

    call: bytes
    reply: bytes

    @classmethod
    def new(cls) -> Words:
        return cls(secrets.token_bytes(WORD_BYTES), secrets.token_bytes(WORD_BYTES))


async def answer(host: str, port_range: Sequence[int] | None, words: Words, *, limit_s: float) -> Server:
    """A server on `host` that replies to whoever knows the word, until it is closed; see rlstack.ports.

    limit_s: for a connection to send its word. Raises RuntimeError as listen().
    """

    async def reply(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(limit_s):
                if hmac.compare_digest(await reader.readexactly(WORD_BYTES), words.call):
                    writer.write(words.reply)
                    await writer.drain()
        writer.close()

    return await asyncio.start_server(reply, sock=listen(host, port_range))


def port_of(server: Server) -> int:
    """The port on which it listens."""
    port: int = server.sockets[0].getsockname()[1]
    return port


async def call(host: str, port: int, words: Words, *, limit_s: float) -> str | None:
    """Return why this process cannot reach the one that answers at (`host`, `port`); None if it can.

    limit_s: for connecting and for both words together, in seconds.
    """
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(words.call)
                await writer.drain()
                found = await reader.readexactly(WORD_BYTES)
            finally:
                writer.close()
    except TimeoutError:
        return f"nothing came back within {limit_s:g} s"
    except asyncio.IncompleteReadError:
        return "another program answers there"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None if hmac.compare_digest(found, words.reply) else "another program answers there"
