"""The front's answers to requests that only read, one by one: a pair of sockets stands for the FUSE device (ADR 47)."""

from __future__ import annotations

import errno
import json
import random
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ledgerfsd.core.engine import Engine
from ledgerfsd.core.front import Front, ReceiptFile, ffi, lib
from ledgerfsd.core.kernel import HeldBalances, balance
from ledgerfsd.core.proofs import EntryProofs
from ledgerfsd.merkle import proof
from ledgerfsd.merkle.tlog_proof import TlogProof
from ledgerfsd.service import render
from ledgerfsd.service.receipts import number_of
from ledgerfsd.types import Mode
from ledgerfsd.vfs import nodes
from ledgerfsd.vfs.front import NUMBERS
from ledgerfsd.vfs.nodes import Fixed, Kind
from tests.fs.conftest import lines, packed, pay

# Of linux/fuse.h.
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, BATCH_FORGET, UNLINK = 1, 2, 3, 14, 15, 18, 25, 42, 10
WRITE, CREATE, IOCTL, INIT = 16, 35, 39, 26
AUTO_INVAL_DATA = 1 << 12
HEAD, REPLY = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
ENTRY, ATTR_OUT, ATTR = struct.Struct("=QQQQII"), struct.Struct("=QII"), struct.Struct("=QQQQQQIIIIIIIIII")
DIRECT_IO, KEEP_CACHE, NOFLUSH, INVALIDATE, STORE = 1, 2, 32, 2, 4
SECONDS = 5
LONG = 77
O_RDWR, O_TRUNC = 2, 0o1000


class Attributes(NamedTuple):
    """Of ``struct fuse_attr``, what is not a time twice or always the same."""

    inode: int
    size: int
    mtime_ns: int
    mode: int
    links: int
    uid: int


class Device:
    """The kernel's end."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.held = HeldBalances(engine)
        self.proofs = EntryProofs(engine)
        self.mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.front = Front(engine, inbox=Fixed.INBOX, kind=nodes.inode(Kind.INBOX_FILE, 0), errnos=())
        self.front.read(NUMBERS, uid=1001, gid=1002, seconds=LONG)
        self._front: Any = ffi.cast("void *", self.front.addresses.context)
        self.ready = lib.lfs_front_descriptor(self._front, theirs.fileno())
        self.unique = self.taken = self.opcode = self.paid = 0
        self.place: Any = ffi.new("void **")
        assert self.front.start()

    def record(self, directory: Path) -> None:
        """Have T2 write receipts."""
        self.front.receipts(ReceiptFile(directory))
        self.front.limit(8)

    def close(self) -> None:
        self.front.stop()
        self.mine.close()
        self.theirs.close()

    def send(self, opcode: int, node: int, body: bytes) -> None:
        self.unique += 1
        self.opcode = opcode
        self.mine.send(HEAD.pack(HEAD.size + len(body), opcode, self.unique, node, 0, 0, 0, 0, 0) + body)

    def ask(self, opcode: int, node: int, body: bytes = b"", *, stored: bytes = b"") -> tuple[int, bytes]:
        """Errno and body of the answer; before it the kernel may be told that this is the page now."""
        self.send(opcode, node, body)
        if stored:
            assert self.answer() == (0, STORE, struct.pack("=QQII", node, 0, len(stored), 0) + stored)
        unique, error, rest = self.answer()
        assert unique == self.unique
        return -error, rest

    def dropped(self, node: int) -> None:
        """The kernel is told to forget its attributes."""
        assert self.answer() == (0, INVALIDATE, struct.pack("=Qqq", node, -1, 0))

    def quiet(self) -> bool:
        """It is told nothing."""
        return not select.select([self.mine], [], [], 0)[0]

    def answer(self) -> tuple[int, int, bytes]:
        assert select.select([self.mine], [], [], SECONDS)[0], "it was not answered"
        data = self.mine.recv(1 << 20)
        length, error, unique = REPLY.unpack_from(data)
        assert length == len(data)
        return unique, error, data[REPLY.size :]

    def passed_on(self) -> bytes:
        """What Python gets of the last request, without its head."""
        assert select.select([self.ready], [], [], SECONDS)[0], "it was not passed on"
        opcode, body = self.take()
        assert (opcode, self.taken) == (self.opcode, self.unique)
        return body

    def take(self) -> tuple[int, bytes]:
        """Opcode and body of the next request for Python."""
        length = lib.lfs_front_receive(self._front, self.place, ffi.new("int *"))
        data = bytes(ffi.buffer(self.place[0], length))
        size, opcode, self.taken, *_ = HEAD.unpack_from(data)
        assert size == length
        return opcode, data[HEAD.size :]

    def look(self, directory: int, name: bytes) -> tuple[int, int, Attributes]:
        """Entry and attribute seconds, and the attributes."""
        error, body = self.ask(LOOKUP, directory, name + b"\0")
        assert not error
        node, generation, entry_valid, attr_valid, *_ = ENTRY.unpack_from(body)
        found = attributes(body[ENTRY.size :])
        assert (node, generation) == (found.inode, 0)
        return entry_valid, attr_valid, found

    def opens(self, node: int, *, stored: bytes = b"") -> None:
        error, body = self.ask(OPEN, node, struct.pack("=II", 0, 0), stored=stored)
        assert (error, struct.unpack("=QIi", body)) == (0, (node, KEEP_CACHE | NOFLUSH, 0))

    def reads(self, node: int, offset: int = 0, size: int = 4096) -> bytes:
        error, body = self.ask(READ, node, struct.pack("=QQIIQII", node, offset, size, 0, 0, 0, 0))
        assert not error
        return body

    def opens_text(self, node: int) -> int:
        """Handle of a file that has a text for each open."""
        error, body = self.ask(OPEN, node, struct.pack("=II", 0, 0))
        handle, flags, backing = struct.unpack("=QIi", body)
        assert (error, flags, backing) == (0, DIRECT_IO | NOFLUSH, 0)
        assert 3 << 61 <= handle < 1 << 63
        return int(handle)

    def reads_text(self, node: int, handle: int, offset: int = 0, size: int = 4096) -> bytes:
        error, body = self.ask(READ, node, struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0))
        assert not error
        return body

    def closes(self, node: int, handle: int) -> None:
        for opcode in (FLUSH, RELEASE):
            assert self.ask(opcode, node, struct.pack("=QQQ", handle, 0, 0)) == (0, b"")

    def drop(self, name: bytes, document: bytes) -> None:
        """An inbox file, as the front takes one: created, written at once, closed."""
        error, body = self.ask(CREATE, Fixed.INBOX, struct.pack("=IIII", 1, 0o644, 0, 0) + name + b"\0")
        assert not error
        (node,), (handle,) = struct.unpack_from("=Q", body), struct.unpack_from("=Q", body, ENTRY.size + ATTR.size)
        head = struct.pack("=QQIIQII", handle, 0, len(document), 0, 0, 0, 0)
        assert self.ask(WRITE, node, head + document) == (0, struct.pack("=II", len(document), 0))
        self.closes(node, handle)

    def pay(self, *intents: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Commit; whose attributes Python has to drop, and whose pages."""
        self.paid += 1  # the same line in another file is another intent
        self.engine.submit(lines(*intents), source=b"%d" % self.paid, first_line=1, mode=Mode.EACH)
        self.engine.drain()
        self.engine.completions()
        told = self.held.committed(self.engine.touched())
        self.engine.deliver()
        return told


def attributes(data: bytes) -> Attributes:
    inode, size, blocks, *times = ATTR.unpack(data)
    seconds, (nanoseconds, *_), (mode, links, uid, gid) = times[:3], times[3:6], times[6:10]
    assert seconds == [seconds[0]] * 3
    assert (blocks, gid, times[11]) == ((size + 511) // 512, 1002, 4096)
    return Attributes(inode, size, seconds[0] * 10**9 + nanoseconds, mode, links, uid)


@pytest.fixture
def here(engine: Engine) -> Iterator[Device]:
    """A device and three accounts."""
    made = Device(engine)
    opened = {"type": "open_account", "class": "suspense", "currency": "EUR", "limit": "none"}
    made.pay(*({**opened, "account": name} for name in "abc"), pay())
    yield made
    made.close()


BALANCE, ACCOUNT, TRANSACTION = (nodes.inode(kind, 0) for kind in (Kind.BALANCE, Kind.ACCOUNT, Kind.TRANSACTION))
FILE, DIRECTORY = stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555


def test_an_account(here: Device) -> None:
    """Names and attributes of a directory that never changes. SEMANTICS 1.5, SEMANTICS 2.2"""
    for ordinal, name in enumerate((b"a", b"b", b"c")):
        entry, valid, found = here.look(Fixed.ACCOUNTS, name)
        opened = int(balance(here.engine, ordinal, here.engine.account(ordinal).open_index + 1)[1])
        assert (entry, valid) == (LONG, LONG)
        assert found == Attributes(ACCOUNT | ordinal, 0, opened, DIRECTORY, 2, 1001)
        error, body = here.ask(GETATTR, found.inode, bytes(16))
        assert (error, ATTR_OUT.unpack_from(body)[0], attributes(body[ATTR_OUT.size :])) == (0, LONG, found)
    for name in (b"d", b"A", b"", b"a/", b"\xff", b"x" * 65, b"x" * 255):
        assert here.ask(LOOKUP, Fixed.ACCOUNTS, name + b"\0") == (errno.ENOENT, b""), name
    assert here.ask(LOOKUP, Fixed.ACCOUNTS, b"x" * 256 + b"\0") == (errno.ENAMETOOLONG, b"")


def test_a_transaction(here: Device) -> None:
    """The exact bytes, under the listed name only, kept for ever. SEMANTICS 1.4, SEMANTICS 2.6"""
    entry, valid, found = here.look(Fixed.TRANSACTIONS, b"tx_0001.json")
    text = bytes(here.engine.entry(here.engine.transaction(1)))
    assert (entry, valid, found.inode, found.size, found.mode) == (LONG, LONG, TRANSACTION | 1, len(text), FILE)
    here.opens(found.inode)
    assert here.reads(found.inode) == text
    for offset, size in ((0, 10), (7, 100), (len(text) - 1, 10), (len(text), 10), (1 << 40, 10)):
        assert here.reads(found.inode, offset, size) == text[offset : offset + size]
    assert here.ask(FLUSH, found.inode, bytes(24)) == here.ask(RELEASE, found.inode, bytes(24)) == (0, b"")
    wrong = (
        "tx_1.json",
        "tx_00001.json",
        "tx_0002.json",
        "tx_0000.json",
        "tx_001.json",
        "tx_0001.jso",
        "tx_0001",
        "tx_.json",
        "tx_+001.json",
    )
    for name in (*wrong, "tx_" + "9" * 19 + ".json", "tx_" + "9" * 20 + ".json", "TX_0001.json", "tx_0001.json "):
        assert here.ask(LOOKUP, Fixed.TRANSACTIONS, name.encode() + b"\0") == (errno.ENOENT, b""), name


def test_a_balance_is_of_one_state_and_told_of_a_commit(here: Device) -> None:
    """What the kernel may keep, and when it is told. SEMANTICS 1.2, SEMANTICS 1.8"""
    node = BALANCE | 1
    for _ in range(3):
        entry, valid, found = here.look(ACCOUNT | 1, b"balance.json")
        assert (entry, valid, found.inode, found.size, found.mode) == (LONG, LONG, node, 512, FILE)
    assert len(here.held) == 1
    assert here.pay(pay()) == ([], []), "T2 tells of it"
    here.dropped(node)
    assert here.pay(pay()) == ([], []), "nothing that is valid was given since"
    assert here.quiet()
    error, body = here.ask(GETATTR, node, bytes(16))
    assert (error, ATTR_OUT.unpack_from(body)[0]) == (0, LONG)
    assert here.pay(pay()) == ([], [])
    here.dropped(node)
    here.opens(node, stored=balance(here.engine, 1)[0])
    assert here.reads(node) == balance(here.engine, 1)[0]
    assert here.reads(node, 500) == balance(here.engine, 1)[0][500:]
    here.opens(node)
    assert here.pay(pay()) == ([], [1]), "pages, for it is open"
    here.held.renewed(1)
    assert attributes(here.ask(GETATTR, node, bytes(16))[1][ATTR_OUT.size :]).mtime_ns == balance(here.engine, 1)[1]
    for _ in range(2):
        assert here.ask(RELEASE, node, bytes(24)) == (0, b"")
    here.opens(node)
    assert here.ask(RELEASE, node, bytes(24)) == (0, b"")
    assert here.pay(pay()) == ([], [])
    here.dropped(node)
    here.opens(node, stored=balance(here.engine, 1)[0])
    assert here.ask(RELEASE, node, bytes(24)) == (0, b"")


def test_the_kernel_is_not_to_judge_pages_by_their_time(here: Device) -> None:
    """FUSE_INIT goes on without FUSE_AUTO_INVAL_DATA (ADR 53). SEMANTICS 1.7"""
    version, flags = struct.pack("=III", 7, 45, 1 << 17), (1 << 32) - 1
    here.send(INIT, 0, version + struct.pack("=II", flags, 0) + bytes(44))
    assert here.passed_on() == version + struct.pack("=II", flags - AUTO_INVAL_DATA, 0) + bytes(44)


def test_what_the_core_does_not_tell_itself(here: Device) -> None:
    """Python is left files that are open, accounts of which other files are held, and what comes while it tells. SEMANTICS 1.2"""
    one, two = BALANCE | 1, BALANCE
    for ordinal in (0, 1):
        here.look(ACCOUNT | ordinal, b"balance.json")
    here.engine.watch(1, True)
    assert here.pay(pay()) == ([1], []), "another file of the account is held"
    here.dropped(two)
    assert here.quiet()
    here.engine.watch(1, False)
    for node in (one, two):
        here.ask(GETATTR, node, bytes(16))
    here.opens(one, stored=balance(here.engine, 1)[0])
    assert here.pay(pay()) == ([], [1]), "it is open"
    here.dropped(two)
    here.held.renewed(1)
    assert here.quiet()
    here.engine.submit(lines(pay()), source=b"taken", first_line=1, mode=Mode.EACH)
    here.engine.drain()
    assert here.engine.touched() == [1]
    here.ask(GETATTR, two, bytes(16))
    assert here.pay(pay()) == ([0], [1]), "Python tells of what was committed before"
    assert here.quiet()
    here.ask(GETATTR, two, bytes(16))
    assert here.pay(pay()) == ([], [1])
    here.dropped(two)


def test_an_inode_that_the_kernel_is_about_to_make(here: Device) -> None:
    """What cannot be told between the answer to a LOOKUP and the inode is told later. SEMANTICS 1.2"""
    for ordinal in (0, 1):
        here.look(ACCOUNT | ordinal, b"balance.json")
    here.ask(GETATTR, BALANCE, bytes(16))
    assert [here.held.coming(ordinal) for ordinal in (0, 1)] == [False, True]
    here.mine.shutdown(socket.SHUT_RD)  # nothing can be told; why, the core does not ask
    assert here.pay(pay()) == ([1], []), "of the other it was told that the kernel has none"
    here.send(FORGET, BALANCE | 1, struct.pack("=Q", 1))
    end = time.monotonic() + SECONDS
    while here.held.coming(1):
        assert time.monotonic() < end


def test_a_past_balance(here: Device) -> None:
    """By any time, and by what directories say without one. SEMANTICS 12.1, SEMANTICS 12.3"""
    here.pay(pay("5.00"))
    time = here.engine.entry(here.engine.transaction(1)).tobytes().rpartition(b'"time":"')[2][:30]
    size = here.engine.transaction(1) + 1
    entry, valid, state = here.look(nodes.past_directory(0, 0, 0), time)
    assert (entry, valid, state.mode, state.links) == (LONG, LONG, DIRECTORY, 2)
    part, label, key = nodes.past_parts(nodes.number_of(state.inode))
    assert (part, key, label) == (1, size, render.time_of(b'"time":"' + time) // 10**9 % 8)
    for where, its_key in ((label, size), (9, size), (14, size), (10, 1)):
        accounts = here.look(nodes.past_directory(1, where, its_key), b"accounts")[2]
        assert accounts == state._replace(inode=nodes.past_directory(2, where, its_key))
        account = here.look(accounts.inode, b"b")[2]
        assert account == state._replace(inode=nodes.past_account(where, its_key, 1))
        found = here.look(account.inode, b"balance.json")
        text, mtime = balance(here.engine, 1, size)
        assert found == (
            LONG,
            LONG,
            Attributes(nodes.account_at(Kind.PAST_BALANCE, 1, size), 512, mtime, FILE, 1, 1001),
        )
        here.opens(found[2].inode)
        assert here.reads(found[2].inode) == text != balance(here.engine, 1)[0]
        assert here.ask(OPEN, found[2].inode, struct.pack("=II", O_RDWR, 0)) == (errno.EROFS, b"")
    opened = nodes.past_directory(2, 9, here.engine.account(1).open_index)
    assert here.ask(LOOKUP, opened, b"b\0") == (errno.ENOENT, b""), "not opened by then"
    assert len(here.held) == 0
    for name in (
        b"2026-11",
        b"named",
        b"block-2",
        b"effective",
        b"2199-01-01T00:00:00Z",
        b"1970-01-01T00:00:00Z",
        b"2026-13-01T00:00:00Z",
    ):
        here.send(LOOKUP, nodes.past_directory(0, 0, 0), name + b"\0")
        assert here.passed_on() == name + b"\0"
    for directory in (
        nodes.past_directory(1, 13, 1),
        nodes.past_directory(1, 15, 1),
        nodes.past_directory(1, 9, 1 << 31),
    ):
        here.send(LOOKUP, directory, b"accounts\0")
        assert here.passed_on() == b"accounts\0"


def test_what_would_write_is_refused(here: Device) -> None:
    """SEMANTICS 9.1"""
    for node in (BALANCE | 1, TRANSACTION | 1):
        for flags in (1, O_RDWR, O_TRUNC):
            assert here.ask(OPEN, node, struct.pack("=II", flags, 0)) == (errno.EROFS, b"")


RECEIPT, PROOF = nodes.inode(Kind.RECEIPT, 0), nodes.inode(Kind.PROOF, 0)


def recorded(here: Device, number: int) -> bytes:
    """The text of the receipt of a transaction that was dropped alone."""
    index = here.engine.transaction(number)
    block = here.engine.block_of(index)
    return b'{"line":1,"status":"committed","code":"ok","index":%d,"tx":"tx_%04d","block":%d}\n' % (
        index,
        number,
        block,
    )


def test_a_receipt(here: Device, tmp_path: Path) -> None:
    """As it was when it was opened; every open has a text of its own. SEMANTICS 1.6, SEMANTICS 1.8"""
    here.record(tmp_path)
    before = time.time_ns()
    here.drop(b"one.json", packed(pay("3.00")))
    node, number = RECEIPT | number_of("one.json", dry_run=False), here.engine.counts().transactions
    text = recorded(here, number)
    entry, valid, found = here.look(Fixed.RECEIPTS, b"one.json")
    assert (entry, valid, found) == (LONG, 0, Attributes(node, len(text), found.mtime_ns, FILE, 1, 1001))
    (told,) = here.front.told()
    assert before <= found.mtime_ns == told.recorded_ns <= time.time_ns()
    record = next(tmp_path.glob("*.ndjson")).read_bytes()[told.receipt_at :][: told.receipt_len]
    assert json.loads(record)["results"][0]["tx"] == number
    error, body = here.ask(GETATTR, node, bytes(16))
    assert (error, ATTR_OUT.unpack_from(body)[0], attributes(body[ATTR_OUT.size :])) == (0, 0, found)
    handles = [here.opens_text(node) for _ in range(600)]
    assert len(set(handles)) == 600
    for offset, size in ((0, 4096), (0, 10), (7, 100), (len(text) - 1, 10), (len(text), 10), (1 << 40, 10)):
        assert here.reads_text(node, handles[-1], offset, size) == text[offset : offset + size]
    here.front.receipt_drop(number_of("one.json", dry_run=False))  # Python has another
    assert here.reads_text(node, handles[0]) == text
    for opcode, parent, rest in (
        (LOOKUP, Fixed.RECEIPTS, b"one.json\0"),
        (GETATTR, node, bytes(16)),
        (OPEN, node, bytes(8)),
    ):
        here.send(opcode, parent, rest)
        assert here.passed_on() == rest
    for handle in handles:
        here.closes(node, handle)
    for handle in (handles[0], (1 << 62) + 5, node):
        here.send(RELEASE, node, struct.pack("=QQQ", handle, 0, 0))
        assert here.passed_on() == struct.pack("=QQQ", handle, 0, 0)


def test_the_newest_receipts(here: Device, tmp_path: Path) -> None:
    """Of more than are kept the oldest are Python's; what is written again is the newer one."""
    here.record(tmp_path)
    names = [b"r-%d.json" % number for number in range(4_100)]
    for number, name in enumerate(names):
        here.drop(name, packed(pay("0.01", reference=str(number))))
        here.front.told()
    for name in (*names[:4], b"nobody.json", b"b\xc3\xa4nk.json", b"", b"x" * 256):
        here.send(LOOKUP, Fixed.RECEIPTS, name + b"\0")
        assert here.passed_on() == name + b"\0"
    last = here.engine.counts().transactions
    for name, number in ((names[4], last - 4_095), (names[-1], last)):
        node = here.look(Fixed.RECEIPTS, name)[2].inode
        assert here.reads_text(node, here.opens_text(node)) == recorded(here, number)
    here.front.name(names[-1], there=False)
    here.drop(names[-1], packed(pay("0.02")))
    assert here.look(Fixed.RECEIPTS, names[-1])[2].inode == node
    assert here.reads_text(node, here.opens_text(node)) == recorded(here, last + 1)


def test_a_proof(here: Device, tmp_path: Path) -> None:
    """In the checkpoint in force, while it is; else Python is asked. SEMANTICS 2.12"""
    number = here.engine.counts().transactions
    name, index, size = b"tx_%04d.tlog-proof\0" % number, here.engine.transaction(number), here.engine.counts().entries
    node, root, note = PROOF | number, tmp_path / "root", b"example\n12\nroot\n\n\xe2\x80\x94 signed\n"
    root.write_bytes(b"{}")

    def version() -> tuple[int, int, int]:
        there = root.stat()
        return there.st_ino, there.st_mtime_ns, there.st_size

    def is_passed_on() -> None:
        for opcode, parent, rest in ((LOOKUP, Fixed.PROOFS, name), (GETATTR, node, bytes(16)), (OPEN, node, bytes(8))):
            here.send(opcode, parent, rest)
            assert here.passed_on() == rest

    is_passed_on()
    here.front.checkpoint(root, version(), index, note)
    is_passed_on()  # not covered
    assert not here.proofs.expected()
    here.front.checkpoint(root, version(), size, note)
    path = proof.inclusion(here.engine.hashes, index, size)
    text = TlogProof(index, tuple(path), note).encode()
    entry, valid, found = here.look(Fixed.PROOFS, name[:-1])
    mtime = render.time_of(bytes(here.engine.entry(size - 1)))
    assert (entry, valid, found) == (LONG, 0, Attributes(node, len(text), mtime, FILE, 1, 1001))
    assert here.proofs.expected()
    handle = here.opens_text(node)
    error, body = here.ask(GETATTR, node, bytes(16))
    assert (error, ATTR_OUT.unpack_from(body)[0], attributes(body[ATTR_OUT.size :])) == (0, 0, found)
    assert not here.proofs.expected(), "it leads no further"
    for wrong in (b"tx_%d.tlog-proof", b"tx_%05d.tlog-proof", b"tx_%04d.tlog-prooF", b"tx_%04d.json", b"tx_%04d"):
        here.send(LOOKUP, Fixed.PROOFS, wrong % number + b"\0")
        assert here.passed_on() == wrong % number + b"\0"
    root.write_bytes(b"{ }")  # other keys
    is_passed_on()
    here.front.checkpoint(root, version(), size, note + b"more\n")
    other = here.opens_text(node)
    time.sleep(1.01)
    is_passed_on()  # no longer in force
    assert here.reads_text(node, handle) == text
    assert here.reads_text(node, other, 5) == text[5:] + b"more\n"
    here.closes(node, handle)
    here.closes(node, other)


def test_who_asks_for_a_proof_waits_for_the_checkpoint_on_its_way(here: Device, tmp_path: Path) -> None:
    """And is answered with it, or by Python if it does not come or does not cover the transaction. SEMANTICS 2.12"""
    number, size = here.engine.counts().transactions, here.engine.counts().entries
    name, index = b"tx_%04d.tlog-proof\0" % number, here.engine.transaction(number)
    node, root, note = PROOF | number, tmp_path / "root", b"signed\n"
    root.write_bytes(b"{}")
    version = root.stat().st_ino, root.stat().st_mtime_ns, 2
    here.front.signing(True)
    here.send(OPEN, node, bytes(8))
    assert here.passed_on() == bytes(8)
    absent = b"tx_%04d.tlog-proof\0" % (number + 1)
    here.send(LOOKUP, Fixed.PROOFS, absent)
    assert here.passed_on() == absent

    def ask() -> None:
        here.send(GETATTR, node, bytes(16))
        here.send(LOOKUP, Fixed.PROOFS, name)
        here.look(Fixed.TRANSACTIONS, b"tx_0001.json")  # so they have been looked at, and neither was answered
        assert not select.select([here.ready], [], [], 0)[0]

    ask()
    here.front.checkpoint(root, version, size, note)
    assert [here.answer()[:2] for _ in range(2)] == [(here.unique - 2, 0), (here.unique - 1, 0)]
    for end in (lambda: here.front.checkpoint(root, version, index, note), lambda: here.front.signing(False)):
        here.front.checkpoint(root, version, index, note)
        here.front.signing(True)
        ask()
        end()
        assert [here.take() for _ in range(2)] == [(GETATTR, bytes(16)), (LOOKUP, name)]
        here.send(LOOKUP, Fixed.PROOFS, name)
        assert here.passed_on() == name, "nothing is on its way"
    here.front.signing(True)
    ask()  # and it ends so


def test_nothing_is_a_terminal(here: Device) -> None:
    """IOCTL, which ``open()`` of Python asks of every file, needs no Python here."""
    for node in (BALANCE | 1, TRANSACTION | 1, RECEIPT | 5, PROOF | 1, nodes.account_at(Kind.PAST_BALANCE, 1, 9)):
        assert here.ask(IOCTL, node, bytes(32)) == (errno.ENOSYS, b"")
    here.send(IOCTL, nodes.inode(Kind.TX_LOG, 1), bytes(32))
    assert here.passed_on() == bytes(32)


def batch(*forgotten: tuple[int, int]) -> bytes:
    return struct.pack("=II", len(forgotten), 0) + b"".join(struct.pack("=QQ", *each) for each in forgotten)


def test_what_the_kernel_gives_back(here: Device) -> None:
    """Of balances it is counted here, of all others by Python, which sees those only. SEMANTICS 1.2"""
    for ordinal, count in ((0, 1), (1, 3), (2, 2)):
        for _ in range(count):
            here.look(ACCOUNT | ordinal, b"balance.json")
    log, other = nodes.inode(Kind.TX_LOG, 1), nodes.inode(Kind.ACCOUNT_FILE, 2)
    assert len(here.held) == 3
    here.send(FORGET, BALANCE, struct.pack("=Q", 1))
    here.send(BATCH_FORGET, 0, batch((BALANCE | 1, 2), (BALANCE | 2, 2)))
    here.send(BATCH_FORGET, 0, batch((log, 5), (BALANCE | 1, 1), (other, 6)))
    left = here.passed_on()
    assert struct.unpack_from("=I", left)[0] == 2
    assert [struct.unpack_from("=QQ", left, 8 + 16 * each) for each in range(2)] == [(log, 5), (other, 6)]
    assert len(here.held) == 0
    here.engine.touched()
    assert here.pay(pay(), pay("2.00", "c", "a")) == ([], []), "no account is watched any more"


def test_what_is_unknown_is_passed_on_as_it_is(here: Device) -> None:
    """Other names, other requests, other files; and whatever is too short, wherever it ends."""
    whole = struct.pack("=QQIIQII", BALANCE, 0, 4096, 0, 0, 0, 0)
    requests = [
        (LOOKUP, ACCOUNT | 1, b"tx.log\0"),
        (LOOKUP, Fixed.ROOT, b"accounts\0"),
        (LOOKUP, Fixed.ACCOUNTS, b"a"),
        (LOOKUP, Fixed.ACCOUNTS, b"a\0b\0"),
        (LOOKUP, ACCOUNT | 9, b"balance.json\0"),
        (UNLINK, ACCOUNT | 1, b"balance.json\0"),
        (READ, nodes.inode(Kind.TX_LOG, 1), whole),
        (GETATTR, BALANCE | 9, bytes(16)),
        (READ, TRANSACTION | 2, whole),
        (READ, BALANCE | ((1 << 56) - 1), whole),
        (BATCH_FORGET, 0, struct.pack("=IIQQ", 2, 0, BALANCE, 1)),
        *((READ, BALANCE, whole[:length]) for length in range(len(whole))),
        *((opcode, BALANCE, bytes(3)) for opcode in (FORGET, GETATTR, OPEN, RELEASE, FLUSH, BATCH_FORGET)),
    ]
    for opcode, node, body in requests:
        here.send(opcode, node, body)
        assert here.passed_on() == body, (opcode, node, body)
    assert len(here.held) == 0


def test_nonsense_is_survived(here: Device) -> None:
    """Random requests about random files are answered or passed on, each exactly once."""
    chance = random.Random(47)
    numbers = [*NUMBERS, 0, 1 << 56, (1 << 64) - 1]
    for _ in range(3_000):
        opcode = chance.choice((LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, BATCH_FORGET))
        node = min(chance.choice(numbers) + chance.choice((0, 1, 2, 1 << 40, 1 << 55)), (1 << 64) - 1)
        body = chance.choice(
            (chance.randbytes(chance.randrange(80)), b"balance.json\0", b"tx_0001.json\0", bytes(chance.randrange(64)))
        )
        here.send(opcode, node, body)
    here.send(UNLINK, 0, b"end\0")
    answered = passed = 0
    while True:
        for each in select.select([here.mine, here.ready], [], [], SECONDS)[0]:
            if each is here.mine:
                answered += here.answer()[0] != 0
            else:
                passed += 1
                opcode, body = here.take()
                if opcode == UNLINK:
                    assert body == b"end\0"
                    assert answered > 100 and passed > 100
                    assert here.reads(BALANCE) == balance(here.engine, 0)[0]
                    return
