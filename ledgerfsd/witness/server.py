"""The witness on HTTP: POST /add-checkpoint, GET /<hash of the origin>/checkpoint. Start at ``serve``.

It is reached by strangers: there are bounds on the connections, on the bytes of a head and of a body, and on the time for which
a connection may say nothing. What is wrong is answered in a line of text; nothing of it is ever interpreted further.
"""

from __future__ import annotations

import re
import signal
import time
from collections import defaultdict
from typing import Final

import h11
import structlog
import trio

from ledgerfsd import __version__
from ledgerfsd.errors import LedgerError
from ledgerfsd.obs import logging
from ledgerfsd.obs.sdnotify import notify
from ledgerfsd.witness.judging import Answer, Refusal, judge, read
from ledgerfsd.witness.memory import Memory

log = structlog.get_logger()

BODY_BYTES_MAX: Final = 128 * 1024  # 63 hashes and a note of a hundred signatures
HEAD_BYTES_MAX: Final = 16 * 1024
REQUEST_SECONDS: Final = 10.0  # for a body to arrive; also for an answer to be taken
IDLE_SECONDS: Final = 60.0  # for a head to arrive, counted from the last answer
CONNECTIONS_MAX: Final = 256
LINGER_BYTES: Final = 1 << 20
LINGER_SECONDS: Final = 2.0
_READ_BYTES: Final = 64 * 1024
_HEAD: Final = re.compile(rb"/([0-9a-f]{64})/checkpoint")


class Server:
    """Answers requests from one memory."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._turns: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)  # by origin: only those that are trusted
        self._open = 0

    async def connection(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Whatever it does concerns nobody else."""
        if self._open >= CONNECTIONS_MAX:
            await stream.aclose()
            return
        self._open += 1
        try:
            async with stream:
                await self._talk(stream)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.LocalProtocolError):
            return
        except Exception:
            log.exception("a request could not be answered")
        finally:
            self._open -= 1

    async def _talk(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        while True:
            try:
                with trio.fail_after(IDLE_SECONDS):
                    request = await _event(connection, stream)
                if not isinstance(request, h11.Request):
                    return
                with trio.fail_after(REQUEST_SECONDS):
                    body = await _body(connection, stream)
            except h11.RemoteProtocolError as error:
                await _send(connection, stream, Answer(error.error_status_hint, f"{error}\n".encode()))
                await _linger(stream)
                return
            if body is None:
                await _send(connection, stream, Answer(413, b"the body is too long\n"))
                await _linger(stream)
                return
            answer = await self._answer(request, body)
            await _send(connection, stream, answer._replace(body=b"") if request.method == b"HEAD" else answer)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, request: h11.Request, body: bytes) -> Answer:
        path = request.target.partition(b"?")[0]
        wanted = {b"/add-checkpoint": b"POST"}.get(path, b"GET" if _HEAD.fullmatch(path) else b"")
        if not wanted:
            return Answer(404, b"nothing is here\n")
        if request.method != wanted:
            return Answer(405, b"this is a " + wanted + b"\n")
        try:
            return await (self._add(body) if wanted == b"POST" else self._newest(path))
        except Refusal as refusal:
            return refusal.answer
        except (LedgerError, OSError) as error:
            log.error("nothing was cosigned", reason=str(error))
            return Answer(503, b"the witness cannot use its memory\n")

    async def _add(self, body: bytes) -> Answer:
        submission = await trio.to_thread.run_sync(read, self._memory, body)
        async with self._turns[submission.head.origin]:
            # Not to be abandoned when the client goes or the witness stops: what is begun is brought to its end.
            return await trio.to_thread.run_sync(judge, self._memory, submission, int(time.time()))

    async def _newest(self, path: bytes) -> Answer:
        found = _HEAD.fullmatch(path)
        known = await trio.to_thread.run_sync(self._memory.log_of_hash, found[1].decode() if found else "")
        if known is None or not known.data:
            return Answer(404, b"no checkpoint of such a log was cosigned here\n")
        return Answer(200, known.data)


async def _event(connection: h11.Connection, stream: trio.SocketStream) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        if connection.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await stream.send_all(connection.send(go_on) or b"")
        connection.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
    return event


async def _body(connection: h11.Connection, stream: trio.SocketStream) -> bytes | None:
    """The body of a request; None: it is too long."""
    body = b""
    while isinstance(event := await _event(connection, stream), h11.Data):
        body += event.data
        if len(body) > BODY_BYTES_MAX:
            return None
    if not isinstance(event, h11.EndOfMessage):
        raise h11.RemoteProtocolError("the request did not end")
    return body


async def _send(connection: h11.Connection, stream: trio.SocketStream, answer: Answer) -> None:
    if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    headers = [
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.body))),
        ("Server", f"ledgerfs-witness/{__version__}"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if connection.their_state is not h11.DONE:  # what it still sends is not read
        headers.append(("Connection", "close"))
    data = b""
    for event in (
        h11.Response(status_code=answer.status, headers=headers),
        h11.Data(data=answer.body),
        h11.EndOfMessage(),
    ):
        data += connection.send(event) or b""
    with trio.fail_after(REQUEST_SECONDS):
        await stream.send_all(data)


async def _linger(stream: trio.SocketStream) -> None:
    """Throw away what is still being sent: a connection that is closed with bytes unread takes its answer with it."""
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_SECONDS):
        await stream.send_eof()
        while left > 0 and (part := await stream.receive_some(_READ_BYTES)):
            left -= len(part)


async def serve(memory: Memory, host: str, port: int) -> None:
    """Serve until told to stop by a signal. Port 0: any that is free. Raises OSError when the address is taken."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, Server(memory).connection, listeners)
            name, number = listeners[0].socket.getsockname()[:2]
            url = f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"
            log.info("serving", url=url, witness=memory.key().witness().encode(), logs=len(memory.logs()))
            notify(READY=1, STATUS=f"serving at {url}")
            async for _ in received:
                notify(STOPPING=1)
                nursery.cancel_scope.cancel()
                break


def run(memory: Memory, host: str, port: int, *, log_format: str) -> None:
    """The process of a witness; its memory is held by the caller. Raises LedgerError when the address cannot be had."""
    logging.configure("info", log_format)
    try:
        trio.run(serve, memory, host, port)
    except OSError as error:
        raise LedgerError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
