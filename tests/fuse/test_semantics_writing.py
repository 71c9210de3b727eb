"""Sections 3 to 8 of docs/SEMANTICS.md, through a real mount."""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse.conftest import Mounted, lines, pay, until

WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


@contextmanager
def opened(path: Path, flags: int = WRITE) -> Iterator[int]:
    """A descriptor; whatever close says is passed over."""
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        try:
            os.close(fd)
        except OSError:
            pass


@contextmanager
def fails(number: int) -> Iterator[None]:
    """Exactly this errno."""
    with pytest.raises(OSError) as error:  # noqa: PT011  (which one is the point)
        yield
    assert errno.errorcode[error.value.errno or 0] == errno.errorcode[number]


def codes(shared: Mounted, name: str) -> list[str]:
    """The codes of a receipt."""
    return [line["code"] for line in shared.receipt(name)]


def packed(intent: object) -> bytes:
    """A document."""
    return json.dumps(intent).encode()


def test_verdict_in_write_and_close(shared: Mounted) -> None:
    """SEMANTICS 3.1, SEMANTICS 3.2"""
    before = shared.transactions()
    text = packed(pay())
    with opened(shared / "inbox/v.json") as fd:
        os.write(fd, text[:-1])
        assert shared.transactions() == before
        os.write(fd, text[-1:])
        assert shared.transactions() == before + 1
        os.fsync(fd)
    fd = os.open(shared / "inbox/refused.json", WRITE)
    with fails(errno.ENXIO):
        os.write(fd, packed(pay(debit="nobody")))
    with fails(errno.ENXIO):
        os.fsync(fd)
    with fails(errno.ENXIO):
        os.close(os.dup(fd))
    with fails(errno.ENXIO):
        os.close(fd)
    with opened(shared / "inbox/array.json") as fd, fails(errno.EDQUOT):
        os.write(fd, packed([pay(), pay("99999999.00"), pay()]))
    assert codes(shared, "array.json") == ["batch_aborted", "insufficient_funds", "batch_aborted"]
    assert shared.transactions() == before + 1


def test_after_the_verdict(shared: Mounted) -> None:
    """SEMANTICS 3.3"""
    before = shared.transactions()
    with opened(shared / "inbox/more.json") as fd:
        os.write(fd, packed(pay()))
        os.write(fd, b" \r\n\t")
        with fails(errno.EALREADY):
            os.write(fd, packed(pay("2.00")))
        with fails(errno.EALREADY):
            os.fsync(fd)
    assert codes(shared, "more.json") == ["ok", "already_committed"]
    with opened(shared / "inbox/both.json") as fd, fails(errno.EBADMSG):
        os.write(fd, packed(pay()) + packed(pay()))
    assert codes(shared, "both.json") == ["bad_json"]
    assert shared.transactions() == before + 1


def test_unfinished_documents(shared: Mounted) -> None:
    """SEMANTICS 3.4, SEMANTICS 8.2"""
    before = shared.transactions()
    text = packed(pay())
    with opened(shared / "inbox/u.json") as fd:
        os.write(fd, text[:9])
        with fails(errno.EBADMSG):
            os.close(os.dup(fd))
        assert codes(shared, "u.json") == ["incomplete"]
        with fails(errno.EBADMSG):
            os.fsync(fd)
        os.write(fd, text[9:])
        assert codes(shared, "u.json") == ["ok"]
        os.close(os.dup(fd))
    assert shared.transactions() == before + 1


def test_empty_files(shared: Mounted) -> None:
    """SEMANTICS 3.5"""
    path = shared / "inbox/e.json"
    path.touch()
    path.touch()
    until((shared / "receipts/e.json").exists)  # what follows a close that nobody hears
    assert codes(shared, "e.json") == ["empty"]
    path.write_bytes(packed(pay()))
    path.touch()
    with opened(path):
        pass
    with opened(path, os.O_RDWR):
        pass
    time.sleep(0.05)
    assert codes(shared, "e.json") == ["ok"]
    fd = os.open(shared / "inbox/blank.json", WRITE)
    os.write(fd, b" \n")
    with fails(errno.EBADMSG):
        os.close(fd)
    assert codes(shared, "blank.json") == ["empty"]


@pytest.mark.parametrize("text", ["hello", "12", '"text"', "tru", "\ufeff{}", "}", "nul", "-"])
def test_foreign_documents(shared: Mounted, text: str) -> None:
    """SEMANTICS 3.6"""
    name = f"foreign-{text.encode().hex()}.json"
    with opened(shared / f"inbox/{name}") as fd:
        with fails(errno.EBADMSG):
            os.write(fd, text.encode())
        with fails(errno.EBADMSG):
            os.write(fd, b"{}")
    assert len(codes(shared, name)) == 1


@pytest.mark.parametrize("text", ['{"a":,', "[1,]x", '{"a" 1', "[{]", '{"debit":"\\ud800x', '{"a":1,"a"'])
def test_hopeless_documents(shared: Mounted, text: str) -> None:
    """SEMANTICS 3.6"""
    name = f"hopeless-{text.encode().hex()}.json"
    with opened(shared / f"inbox/{name}") as fd:
        try:
            os.write(fd, text.encode())
        except OSError as error:
            assert error.errno == errno.EBADMSG
        with fails(errno.EBADMSG):
            os.fsync(fd)
        with fails(errno.EBADMSG):
            os.write(fd, b"}")
    assert codes(shared, name)[0] in ("bad_json", "bad_utf8", "duplicate_key")


def test_large_documents(shared: Mounted) -> None:
    """SEMANTICS 3.7"""
    with opened(shared / "inbox/large.json") as fd:
        os.write(fd, b'{"reference":"')
        with fails(errno.EFBIG):
            for _ in range(100):
                os.write(fd, b"x" * 1000)
    assert codes(shared, "large.json") == ["too_large"]
    with opened(shared / "inbox/huge.json") as fd:
        os.write(fd, b"[")
        with fails(errno.EFBIG):
            for _ in range(100):
                os.write(fd, b" " * (1 << 20))
    assert codes(shared, "huge.json") == ["too_large"]


def test_positions_and_sizes(shared: Mounted) -> None:
    """SEMANTICS 3.8"""
    before = shared.transactions()
    text = packed(pay("2.00"))
    with opened(shared / "inbox/p.json") as fd:
        os.pwrite(fd, packed(pay("1.00"))[:-1], 0)
        with fails(errno.ESPIPE):
            os.pwrite(fd, b"}", 500)
        with fails(errno.EOPNOTSUPP):
            os.ftruncate(fd, 500)
        os.pwrite(fd, text[:10], 0)
        os.ftruncate(fd, 10)
        assert os.fstat(fd).st_size == 10
        os.ftruncate(fd, 10)
        os.pwrite(fd, text[10:], 10)
        os.ftruncate(fd, len(text))
        with fails(errno.EALREADY):
            os.ftruncate(fd, 3)
        with fails(errno.EALREADY):
            os.ftruncate(fd, 3000)
    assert shared.transactions() == before + 1
    newest = (shared / f"transactions/tx_{before + 1:04}.json").read_text()
    assert json.loads(newest)["postings"][0]["amount"] == "2.00"


def test_two_writers_of_one_name(shared: Mounted) -> None:
    """SEMANTICS 3.9"""
    before = shared.transactions()
    one, two = packed(pay("1.00")), packed(pay("2.00"))
    with opened(shared / "inbox/w.json") as first, opened(shared / "inbox/w.json") as second:
        for begin in range(0, len(one), 7):
            os.write(first, one[begin : begin + 7])
            os.write(second, two[begin : begin + 7])
    assert shared.transactions() == before + 2


def test_the_same_again(shared: Mounted) -> None:
    """SEMANTICS 3.10"""
    before = shared.transactions()
    for status in ("committed", "duplicate", "duplicate"):
        shared.drop("same.json", pay("5.00"))
        assert [line["status"] for line in shared.receipt("same.json")] == [status]
    assert shared.transactions() == before + 1
    shared.drop("key-1.json", pay("1.00", id="semantics-key"))
    with fails(errno.EEXIST):
        shared.drop("key-2.json", pay("2.00", id="semantics-key"))


def test_lines_have_their_own_verdict(shared: Mounted) -> None:
    """SEMANTICS 4.1"""
    before = shared.transactions()
    with opened(shared / "inbox/l.ndjson") as fd:
        os.write(fd, lines([pay()]).encode())
        assert shared.transactions() == before + 1
        with fails(errno.ENXIO):
            os.write(fd, lines([pay("2.00"), pay(debit="nobody"), pay("99999999.00"), pay("3.00")]).encode())
        assert shared.transactions() == before + 3
        os.write(fd, lines([pay("4.00")]).encode())
        assert shared.transactions() == before + 4
    assert codes(shared, "l.ndjson") == ["ok", "ok", "unknown_account", "insufficient_funds", "ok", "ok"]


def test_large_writes_of_lines(shared: Mounted) -> None:
    """SEMANTICS 4.2, SEMANTICS 4.3"""
    before = shared.transactions()
    many = lines([pay("0.01")] * 3000).encode()
    assert len(many) > 65536
    fd = os.open(shared / "inbox/big.ndjson", WRITE)
    os.write(fd, many)
    try:
        os.write(fd, lines([pay(debit="nobody")]).encode() + many)
    except OSError as error:
        assert error.errno == errno.ENXIO
    else:
        with fails(errno.ENXIO):
            os.fsync(fd)
    os.fsync(fd)
    assert shared.transactions() == before + 6000
    with fails(errno.ENXIO):
        os.close(fd)
    assert codes(shared, "big.ndjson").count("ok") == 6000


def test_last_lines(shared: Mounted) -> None:
    """SEMANTICS 4.4"""
    before = shared.transactions()
    with opened(shared / "inbox/last.ndjson") as fd:
        os.write(fd, packed(pay()))
        assert shared.transactions() == before
        os.fsync(fd)
        assert shared.transactions() == before + 1
        os.write(fd, b"\n" + packed(pay("2.00"))[:-1])
        with fails(errno.EBADMSG):
            os.fsync(fd)
        os.write(fd, b"}")
        os.close(os.dup(fd))
        assert shared.transactions() == before + 2
        with fails(errno.EALREADY):
            os.write(fd, b"{}\n")
    assert codes(shared, "last.ndjson") == ["ok", "ok", "already_committed"]


def test_odd_lines(shared: Mounted) -> None:
    """SEMANTICS 4.5"""
    text = "\n \r\n" + lines([pay()]) + '{"reference":"' + "x" * 60_000 + '"}\n' + lines([pay("2.00")])
    with fails(errno.EFBIG):
        shared.drop("odd.ndjson", text)
    assert [(line["line"], line["code"]) for line in shared.receipt("odd.ndjson")] == [
        (3, "ok"),
        (4, "too_large"),
        (5, "ok"),
    ]


def test_appending(shared: Mounted) -> None:
    """SEMANTICS 4.6"""
    before = shared.transactions()
    for _ in range(3):
        with (shared / "inbox/log.ndjson").open("a") as file:
            file.write(lines([pay()]))
    assert shared.transactions() == before + 3
    for _ in range(2):
        shared.drop("log.ndjson", lines([pay()] * 3))
    assert shared.transactions() == before + 3


def test_lines_come_in_order(shared: Mounted) -> None:
    """SEMANTICS 4.7"""
    with opened(shared / "inbox/seek.ndjson") as fd:
        os.write(fd, b"\n")
        for offset in (0, 2):
            with fails(errno.ESPIPE):
                os.pwrite(fd, b"\n", offset)


def test_failed_writes_come_again(shared: Mounted) -> None:
    """SEMANTICS 4.8"""
    text = lines([pay("1.00"), pay(debit="nobody"), pay("2.00")])
    for mode, name in (("w", "again.ndjson"), ("a", "again-append.ndjson")):
        before = shared.transactions()
        with fails(errno.ENXIO), (shared / f"inbox/{name}").open(mode) as file:
            file.write(text)  # sent when it is closed, and then once more
        assert shared.transactions() == before + 2
        told = [(line["line"], line["code"]) for line in shared.receipt(name)]
        assert told == [(1, "ok"), (2, "unknown_account"), (3, "ok")]
    before = shared.transactions()
    with fails(errno.ENXIO), (shared / "inbox/flushed.ndjson").open("a") as file:
        file.write(text)
        with fails(errno.ENXIO):
            file.flush()
        file.write(lines([pay("3.00")]))
        file.flush()
        file.write(lines([pay("4.00")]))
    assert shared.transactions() == before + 4
    assert codes(shared, "flushed.ndjson") == ["ok", "unknown_account", "ok", "ok", "ok"]
    (shared.work / "text").write_text(text)
    before = shared.transactions()
    assert shared.shell("awk 1 text > $I/awk.ndjson; sort text > $I/sort.ndjson").returncode != 0
    assert shared.transactions() == before + 4


def test_atomic_files(shared: Mounted) -> None:
    """SEMANTICS 5.1, SEMANTICS 5.2"""
    before = shared.transactions()
    body = lines([pay("1.00"), pay("2.00")])
    atomic = shared / "inbox/atomic"
    (atomic / "h.ndjson").write_text('{"count":2}\n' + body)
    assert shared.transactions() == before + 2
    with fails(errno.EBADMSG):
        (atomic / "p.ndjson").write_text(body)
    assert "rename" in shared.receipt("p.ndjson")[0]["note"]
    with fails(errno.EFBIG):
        (atomic / "m.ndjson").write_text('{"count":1}\n' + body)
    with fails(errno.EDQUOT):
        (atomic / "b.ndjson").write_text('{"count":2}\n' + lines([pay("3.00"), pay("99999999.00")]))
    assert shared.transactions() == before + 2
    (shared.work / "p.ndjson").write_text(body)
    assert shared.shell("cp p.ndjson $I/atomic/.p && mv $I/atomic/.p $I/atomic/p.ndjson").returncode == 0
    (atomic / "d.json").write_bytes(packed(pay("4.00")))
    assert shared.transactions() == before + 5


def test_dry_run_files(shared: Mounted) -> None:
    """SEMANTICS 5.3"""
    before = shared.status()["entries"]
    (shared / "inbox/dry-run/tried.json").write_bytes(packed(pay()))
    with fails(errno.EDQUOT):
        (shared / "inbox/dry-run/d.ndjson").write_text(lines([pay("99999999.00"), pay()]))
    with fails(errno.EBADMSG):
        (shared / "inbox/dry-run/x.json").write_text("{}")
    receipt = (shared / "receipts/dry-run/d.ndjson").read_text().splitlines()
    assert [json.loads(line)["status"] for line in receipt] == ["refused", "accepted"]
    assert json.loads((shared / "inbox/dry-run/tried.json").read_text())["status"] == "accepted"
    assert not (shared / "receipts/tried.json").exists()
    assert shared.status()["entries"] == before


@pytest.mark.parametrize(
    "name", [".x", ".x.json", "x~", "x.json~", "x.tmp", "x.json.part", "x.swp", "x.swx", "4913", "sedAb3dE9"]
)
def test_scratch_names(shared: Mounted, name: str) -> None:
    """SEMANTICS 6.1"""
    before = shared.transactions()
    path = shared / f"inbox/{name}"
    path.write_bytes(packed(pay()))
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"???")
        file.truncate(8)
        file.seek(10)
        file.write(b"z")
    assert path.read_bytes() == packed(pay())[:3] + b"???" + packed(pay())[6:8] + b"\0\0z"
    assert path.stat().st_size == 11
    os.truncate(path, 2)
    assert path.read_bytes() == packed(pay())[:2]
    path.unlink()
    assert shared.transactions() == before


def test_renames(shared: Mounted) -> None:
    """SEMANTICS 6.2, SEMANTICS 6.3"""
    before = shared.transactions()
    scratch, final = shared / "inbox/.r", shared / "inbox/r.json"
    scratch.write_bytes(packed(pay("1.00")))
    number = scratch.stat().st_ino
    scratch.rename(final)
    assert shared.transactions() == before + 1
    assert final.stat().st_ino == number
    assert final.read_text() == (shared / "receipts/r.json").read_text()
    scratch.write_bytes(packed(pay("99999999.00")))
    with fails(errno.EDQUOT):
        scratch.rename(shared / "inbox/r2.json")
    assert json.loads(scratch.read_bytes()) == pay("99999999.00")
    scratch.write_text(lines([pay("2.00"), pay(debit="nobody"), pay("3.00")]))
    for _ in range(2):
        with fails(errno.ENXIO):
            scratch.rename(shared / "inbox/r3.ndjson")
    assert shared.transactions() == before + 3
    scratch.write_bytes(packed(pay("4.00")))
    done = shared.shell("mv -n $I/.r $I/r.json")
    assert scratch.exists(), done
    scratch.rename(final)
    assert shared.transactions() == before + 4
    exchange = "import ctypes, os, sys; l = ctypes.CDLL(None, use_errno=True); " \
        "l.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2); sys.exit(ctypes.get_errno())"  # fmt: skip
    scratch.write_text("x")
    assert shared.shell(f'python3 -c "{exchange}" $I/.r $I/r.json').returncode == errno.EOPNOTSUPP


def test_final_files_stay_where_they_are(shared: Mounted) -> None:
    """SEMANTICS 6.4"""
    shared.drop("f.json", pay())
    before = shared.transactions()
    for target in ("g.json", "atomic/f.json", "dry-run/f.json", "atomic/.f"):
        with fails(errno.EPERM):
            (shared / "inbox/f.json").rename(shared / f"inbox/{target}")
    (shared / "inbox/f.json").rename(shared / "inbox/f.json~")
    with fails(errno.EPERM):
        (shared / "inbox/f.json~").rename(shared / "inbox/g.json")
    with fails(errno.EPERM):
        (shared / "inbox/f.json~").write_bytes(packed(pay()))
    (shared / "inbox/f.json~").rename(shared / "inbox/f.json")
    with opened(shared / "inbox/half.json") as fd:
        os.write(fd, b"{")
        with fails(errno.EPERM):
            (shared / "inbox/half.json").rename(shared / "inbox/other.json")
    assert shared.transactions() == before


def test_scratch_files_have_a_limit(shared: Mounted) -> None:
    """SEMANTICS 6.5"""
    with opened(shared / "inbox/big.tmp") as fd:
        with fails(errno.EFBIG):
            os.pwrite(fd, b"x", 64 << 20)
        with fails(errno.EFBIG):
            os.ftruncate(fd, (64 << 20) + 1)
    assert codes(shared, "big.tmp") == ["too_large"]


def test_names(shared: Mounted) -> None:
    """SEMANTICS 7.1"""
    for name in (b"x", b"x.txt", b"x.JSON", b"json", b"x.json.gz"):
        with fails(errno.EPERM):
            os.open(bytes(shared / "inbox") + b"/" + name, WRITE)
    with fails(errno.EILSEQ):
        os.open(bytes(shared / "inbox") + b"/\xff.json", WRITE)
    with fails(errno.ENAMETOOLONG):
        os.open(bytes(shared / "inbox") + b"/" + b"x" * 251 + b".json", WRITE)
    shared.drop("ü" * 120 + ".json", pay())
    assert codes(shared, "ü" * 120 + ".json") == ["ok"]


def test_inbox_files_show_their_receipt(shared: Mounted) -> None:
    """SEMANTICS 7.2"""
    path = shared.drop("shown.ndjson", lines([pay(), pay("2.00")]))
    receipt = (shared / "receipts/shown.ndjson").read_bytes()
    assert path.read_bytes() == receipt
    assert path.stat().st_size == len(receipt)
    assert path.stat().st_mtime_ns == (shared / "receipts/shown.ndjson").stat().st_mtime_ns
    with opened(shared / "inbox/part.json", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b'{"debit":')
        assert os.pread(fd, 100, 0) == b'{"debit":'
        assert os.fstat(fd).st_size == 9
    assert "shown.ndjson" in os.listdir(shared / "inbox")


def test_removing(shared: Mounted) -> None:
    """SEMANTICS 7.3"""
    path = shared.drop("gone.json", pay())
    before = shared.transactions()
    path.unlink()
    assert not path.exists()
    assert codes(shared, "gone.json") == ["ok"]
    with opened(path) as fd:
        path.unlink()
        os.write(fd, packed(pay("2.00")))
        assert os.fstat(fd).st_nlink == 0
    assert shared.transactions() == before + 1
    with fails(errno.ENOENT):
        path.unlink()


def test_calls_without_effect(shared: Mounted) -> None:
    """SEMANTICS 7.4"""
    path = shared.drop("meta.json", pay())
    inbox = shared / "inbox"
    found = path.stat()
    path.chmod(0o600)
    os.chown(path, os.getuid(), os.getgid())
    os.utime(path, (1, 1))
    assert path.stat() == found
    with fails(errno.EOPNOTSUPP):
        os.setxattr(path, "user.x", b"1")
    with fails(errno.EOPNOTSUPP):
        os.removexattr(path, "user.ledgerfs.code")
    for call in (
        lambda: (inbox / "d").mkdir(),
        lambda: (inbox / "atomic").rmdir(),
        lambda: (inbox / "atomic").rename(inbox / "x"),
        lambda: (inbox / "s.json").symlink_to("x"),
        lambda: os.link(path, inbox / "second.json"),
        lambda: os.mknod(inbox / "node.json", 0o100644),
        lambda: os.mkfifo(inbox / "fifo.json"),
        lambda: inbox.chmod(0o777),
    ):
        with fails(errno.EPERM):
            call()


def test_no_shared_maps(shared: Mounted) -> None:
    """SEMANTICS 7.5"""
    with opened(shared / "inbox/m.tmp", os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b"x" * 100)
        with fails(errno.ENODEV):
            mmap.mmap(fd, 100, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_receipts_tell(shared: Mounted) -> None:
    """SEMANTICS 8.1"""
    bad = [
        '{"debit":"acc_001","credit":"acc_002","amount":12}',
        '{"debit":"acc_001"} x',
        json.dumps(pay("1.00", colour="red")),
    ]
    with fails(errno.EBADMSG):
        shared.drop("told.ndjson", "\n".join([json.dumps(pay()), *bad, json.dumps(pay("99999999.00"))]) + "\n")
    good, kind, syntax, unknown, poor = shared.receipt("told.ndjson")
    newest = shared.balance("acc_001")["as_of"]
    assert good == {
        "line": 1,
        "status": "committed",
        "code": "ok",
        "index": newest["index"],
        "tx": newest["tx"],
        "block": newest["seal"],
    }
    assert (kind["line"], kind["code"], kind["field"]) == (2, "wrong_kind", "amount")
    assert (syntax["code"], syntax["offset"]) == ("bad_json", 20)
    assert (unknown["code"], unknown["field"]) == ("unknown_field", "colour")
    assert (poor["code"], poor["index"], poor["block"]) == ("insufficient_funds", newest["index"] + 1, newest["seal"])
    assert all(line["meaning"] and line["what_to_do"] for line in (kind, syntax, unknown, poor))


def test_receipts_are_there_in_time(shared: Mounted) -> None:
    """SEMANTICS 8.2"""
    for number in range(50):
        name = f"time-{number}.json"
        fd = os.open(shared / f"inbox/{name}", WRITE)
        text, expected = (packed(pay()), "ok") if number % 2 else (packed(pay())[:-1], "incomplete")
        os.write(fd, text)
        if number % 2:
            assert codes(shared, name) == [expected]
            os.close(fd)
        else:
            with fails(errno.EBADMSG):
                os.close(fd)
        assert codes(shared, name) == [expected]


def test_many_clients_at_once(shared: Mounted) -> None:
    """Every close that returned 0 is one transaction, whoever else writes. SEMANTICS 3.1, SEMANTICS 3.9"""
    before = shared.transactions()
    done = []

    def client(number: int) -> None:
        for count in range(25):
            shared.drop(f"client-{number}-{count}.json", pay("0.01"))
            done.append(number)
        with pytest.raises(OSError, match="Disk quota"):
            shared.drop(f"client-{number}.json", pay("99999999.00"))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(120)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3000
    assert shared.transactions() - before == 3000
