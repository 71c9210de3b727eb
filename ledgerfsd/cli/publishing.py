"""``publish nats``: events of a mount into a JetStream stream, each once and in order, whatever is killed.

Start at ``Publisher``. The stream itself says how far it is: its last message carries the index of its event. So nothing is
kept here, and a publisher may be killed and started anew at any moment. Every message names the sequence number that
must be the last one before it (Nats-Expected-Last-Sequence): if it is not, because a message was lost on the way or
because another publisher is at work, the server refuses it and all that follow, and we ask the stream again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ledgerfsd.cli import places
from ledgerfsd.cli.events import READ_BYTES, count, lines, opened
from ledgerfsd.cli.output import print_json
from ledgerfsd.errors import LedgerError

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from ledgerfsd.cli import Commands

INDEX_HEADER: Final = "Ledgerfs-Index"
LEAF_HEADER: Final = "Ledgerfs-Leaf"
SOURCE_HEADER: Final = "Ledgerfs-Source"
PENDING_MAX: Final = 512  # messages on their way
ANSWER_SECONDS: Final = 10.0
CANCEL_SECONDS: Final = 0.1
BACKOFF_SECONDS: Final = (0.1, 5.0)  # after the first failure, and after many
ONCE_FAILURES_MAX: Final = 5  # in a row, with --once; else it tries for ever

TEXT: Final = """\
Publish the events of a mount to NATS JetStream: every event once, in order. It runs until it is stopped; after a failure on
either side it goes on by itself, and it may be killed and started again at any time. The stream is made if it is not there.
It must be for this ledger alone. Each message is an event as in the mount, with the headers Nats-Msg-Id, Ledgerfs-Index,
Ledgerfs-Leaf (leaf hash) and Ledgerfs-Source (origin). {type} in --subject stands for the kind: txn, account, seal, …

It needs the package nats-py: pip install 'ledgerfs[nats]'.

examples:
  ledgerfs publish nats --url nats://127.0.0.1:4222 --stream LEDGER --subject 'ledger.{type}'
  ledgerfs publish nats --once                    what is there now, then stop
"""


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    publish = commands.add_parser("publish", help="publish events to a message broker", description=TEXT)
    publish.add_argument("broker", choices=["nats"], help="which broker")
    publish.add_argument(
        "--url", metavar="URL", default="nats://127.0.0.1:4222", help="the server (default %(default)s)"
    )
    publish.add_argument("--stream", metavar="NAME", default="LEDGER", help="the stream (default %(default)s)")
    publish.add_argument("--subject", metavar="SUBJECT", default="ledger.{type}", help="default %(default)s")
    publish.add_argument("--from", metavar="INDEX", dest="since", type=_index, help="first event of an empty stream")
    publish.add_argument("--creds", metavar="FILE", help="credentials file of the user")
    publish.add_argument("--once", action="store_true", help="stop when all that is there now is published")
    publish.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    publish.set_defaults(run=run_publish)


def _index(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no index of an event")
    return int(text)


def run_publish(options: argparse.Namespace) -> int:
    """Publish until it is stopped."""
    try:
        import nats  # noqa: F401
    except ImportError:
        raise LedgerError("the package nats-py is missing", hint="pip install 'ledgerfs[nats]'") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", options.stream):
        raise LedgerError(f"{options.stream!r} is no name of a stream", hint="letters, digits, _ and -")
    if not re.fullmatch(r"[A-Za-z0-9_{}-]+(\.[A-Za-z0-9_{}-]+)*", options.subject.replace("{type}", "x")) or (
        set("{}") & set(options.subject.replace("{type}", ""))
    ):
        raise LedgerError(f"{options.subject!r} is no subject", hint="such as ledger.events or ledger.{type}")
    publisher = Publisher(places.mounted(options.mount), options)
    published = asyncio.run(publisher.run())
    if options.json:
        print_json({"stream": options.stream, "published": published, "next": publisher.next})
    else:
        print(f"published {published} events to {options.stream}; it has all before {publisher.next}")
    return 0


class Place(NamedTuple):
    """How far a stream is."""

    sequence: int  # of its last message
    next: int  # index of the event to be published


class Retry(Exception):
    """What may be better in a moment."""


class Publisher:
    """Publishes one mount to one stream. ``next``: the event to be published."""

    def __init__(self, mount: Path, options: argparse.Namespace) -> None:
        self._mount = mount
        self._url = options.url
        self._stream = options.stream
        self._subject = options.subject
        self._since = options.since
        self._creds = options.creds
        self._quiet = options.json
        self._end = count(mount) if options.once else None
        self._published = 0
        self.next = 0

    async def run(self) -> int:
        """How many events were published. Raises LedgerError for what does not become better by trying again."""
        import nats.errors
        import nats.js.errors

        least, most = BACKOFF_SECONDS
        pause, failures = least, 0
        while True:
            before = self._published
            try:
                await self._connected()
                return self._published
            except (OSError, Retry, TimeoutError, nats.errors.Error, nats.js.errors.APIError) as error:
                text = f"{type(error).__name__}: {error}".removesuffix(": ")
            failures = 1 if self._published > before else failures + 1
            if self._end is not None and failures > ONCE_FAILURES_MAX:
                raise LedgerError(f"{self._url} does not take events: {text}")
            self._say(f"{text}; trying again")
            pause = least if failures == 1 else min(2 * pause, most)
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311

    async def _connected(self) -> None:
        import nats

        lost = asyncio.Event()

        async def quiet(_: Exception) -> None:
            """What goes wrong is raised where it is waited for."""

        async def closed() -> None:
            lost.set()

        connection = await nats.connect(
            self._url,
            allow_reconnect=False,
            connect_timeout=5,
            max_reconnect_attempts=1,  # else a server that is not there is tried for two minutes
            reconnect_time_wait=0,
            error_cb=quiet,
            disconnected_cb=closed,
            closed_cb=closed,
            user_credentials=self._creds,
        )
        try:
            stream = connection.jetstream(timeout=ANSWER_SECONDS)
            place = await self._place(stream)
            self.next = place.next
            self._say(f"{self._stream} at {self._url} goes on with event {place.next}")
            # Messages whose answer went down with the server are waited for no longer.
            pump, gone = asyncio.create_task(self._pump(stream, place)), asyncio.create_task(lost.wait())
            done, waiting = await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
            while waiting:
                for task in waiting:
                    task.cancel()
                # More than once: a wait for an answer that is there already forgets that it was cancelled (Python 3.11).
                _, waiting = await asyncio.wait(waiting, timeout=CANCEL_SECONDS)
            if pump not in done:
                if not pump.cancelled():
                    pump.exception()  # known: it met the lost connection itself, before it could be cancelled
                raise Retry("the connection was lost")
            await pump
        finally:
            await connection.close()

    # -- where to go on

    async def _place(self, stream: JetStreamContext) -> Place:
        import nats.js.errors

        try:
            state = (await stream.stream_info(self._stream)).state
        except nats.js.errors.NotFoundError:
            subject = self._subject.replace("{type}", "*")
            await stream.add_stream(name=self._stream, subjects=[subject], description="events of a LedgerFS ledger")
            return Place(0, self._since or 0)
        if state.messages == 0:
            if state.last_seq and self._since is None:
                hint = "--from INDEX says which"
                raise LedgerError(f"{self._stream} was emptied: it does not say which event comes next", hint=hint)
            return Place(state.last_seq, self._since or 0)
        try:
            message = await stream.get_msg(self._stream, state.last_seq)
        except nats.js.errors.NotFoundError:
            raise LedgerError(
                f"the last message of {self._stream} was deleted", hint="publish to a new stream"
            ) from None
        headers = message.headers or {}
        if headers.get(SOURCE_HEADER) != self._origin() or not headers.get(INDEX_HEADER, "").isdecimal():
            hint = "a stream is for one ledger alone; choose another with --stream"
            raise LedgerError(f"{self._stream} has messages that are no events of {self._origin()}", hint=hint)
        index = int(headers[INDEX_HEADER])
        event = next(lines(self._mount / f"events/from/{index}.ndjson", follow=False), None)
        if event is None or json.loads(event)["leafhash"] != headers.get(LEAF_HEADER):
            hint = "is this the ledger, and not an older copy of it?"
            raise LedgerError(f"event {index} of {self._stream} is not in the log that is mounted", hint=hint)
        return Place(state.last_seq, index + 1)

    def _origin(self) -> str:
        return str(json.loads((self._mount / ".ledgerfs" / "status.json").read_bytes())["ledger"])

    # -- publishing

    async def _pump(self, stream: JetStreamContext, place: Place) -> None:
        pending: deque[tuple[int, asyncio.Future[Any]]] = deque()
        try:
            with opened(self._mount / f"events/from/{place.next}.ndjson", os.O_NONBLOCK) as descriptor:
                await self._publish(stream, descriptor, place.sequence, pending)
        finally:
            for _, future in pending:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # known: the first failure is the one that is told

    async def _publish(
        self, stream: JetStreamContext, descriptor: int, sequence: int, pending: deque[tuple[int, asyncio.Future[Any]]]
    ) -> None:
        rest = b""
        while self._end is None or self.next < self._end or pending:
            piece = await self._read(descriptor, idle=not pending)
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                if len(pending) >= PENDING_MAX:
                    await self._confirm(pending)
                pending.append((sequence + 1, await self._send(stream, line, sequence)))
                sequence += 1
            while pending and not piece:
                await self._confirm(pending)

    async def _read(self, descriptor: int, *, idle: bool) -> bytes:
        """What is there. If nothing is, and nothing else is to be done, wait for it."""
        while True:
            try:
                return os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                if not idle or self._end is not None:
                    return b""
            loop, ready = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(descriptor)

    async def _send(self, stream: JetStreamContext, line: bytes, sequence: int) -> asyncio.Future[Any]:
        event = json.loads(line)
        kind = event["data"]["t"].partition("/")[0].replace(".", "_")
        headers = {
            "Nats-Msg-Id": f"{event['source']}#{event['id']}",
            "Nats-Expected-Last-Sequence": str(sequence),
            INDEX_HEADER: event["id"],
            LEAF_HEADER: event["leafhash"],
            SOURCE_HEADER: event["source"],
        }
        return await stream.publish_async(
            self._subject.replace("{type}", kind), line, stream=self._stream, headers=headers
        )

    async def _confirm(self, pending: deque[tuple[int, asyncio.Future[Any]]]) -> None:
        sequence, future = pending.popleft()
        answer = await asyncio.wait_for(future, ANSWER_SECONDS)
        if answer.seq != sequence:
            raise Retry(f"the server stored {sequence} as {answer.seq}")
        self._published += 1
        self.next += 1

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)
