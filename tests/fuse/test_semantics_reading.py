"""Sections 1, 2 and 9 of docs/SEMANTICS.md, through a real mount."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerfsd.merkle.tile import decode_bundle
from tests.conftest import Daemon
from tests.fuse.conftest import Mounted, lines, pay, until_followed


def walk(root: Path) -> list[Path]:
    """Every file below a directory."""
    return [Path(where) / name for where, _, names in os.walk(root) for name in names]


def journal(store: Path) -> bytes:
    """All entries on disk, with their lengths."""
    data = b"".join(path.read_bytes() for path in sorted((store / "journal").glob("*.seg")))
    end = 0
    while end + 2 <= len(data) and (length := int.from_bytes(data[end : end + 2], "big")):
        end += 2 + length
    return data[:end]


def test_what_is_shown_is_on_disk(shared: Mounted) -> None:
    """SEMANTICS 1.1"""
    shared.drop("durable.json", pay(reference="durable"))
    newest = sorted(os.listdir(shared / "transactions"))[-1]
    assert (shared / "transactions" / newest).read_bytes() in journal(shared.daemon.store)


def test_readers_see_what_was_acknowledged(shared: Mounted) -> None:
    """Files that this process and another one have cached, and have open. SEMANTICS 1.2"""
    names = ("balance.json", "tx.log", "statement.csv", "account.json")
    paths = [shared / f"accounts/acc_002/{name}" for name in names]
    opened = [path.open("rb", buffering=0) for path in paths]
    other = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin
    assert other.stdout
    for number in range(200):
        before = [path.read_bytes() for path in paths]
        shared.drop(f"seen-{number}.json", pay("0.01"))
        after = [path.read_bytes() for path in paths]
        for file, old, new in zip(opened, before, after, strict=True):
            assert old != new
            assert file.seek(0) == 0
            assert file.read(1 << 20) == new
        other.stdin.write(f"cat {paths[0]}\n")
        other.stdin.flush()
        assert other.stdout.readline().encode() == after[0]
        assert int(json.loads(after[0])["as_of"]["tx"][3:]) == shared.transactions()
    other.communicate()
    for file in opened:
        file.close()


def test_sizes_are_exact(shared: Mounted) -> None:
    """Of every file, by its name alone, before it is opened. SEMANTICS 1.3"""
    for number in range(300):
        shared.drop(f"sized-{number}.json", pay("0.01"))
    live = {shared / f".ledgerfs/{name}" for name in ("status.json", "metrics.prom", "health")}
    for path in walk(shared.path):
        if path not in live:
            assert path.stat().st_size == len(path.read_bytes()), path


def test_immutable_files_stay(shared: Mounted) -> None:
    """SEMANTICS 1.4"""
    shared.drop("first.json", pay())
    state = shared.balance("acc_001")["as_of"]
    fixed = [f"accounts/acc_001/snapshots/block-{state['seal']}.json", "log/tile/0/000.p/3", "log/tile/entries/000.p/4",
             f"transactions/{state['tx']}.json", f"blocks/{state['seal']:08}.json"]  # fmt: skip
    before = {name: _identity(shared / name) for name in fixed}
    shared.drop("second.ndjson", lines([pay("0.10")] * 300))
    assert {name: _identity(shared / name) for name in fixed} == before


def _identity(path: Path) -> tuple[object, ...]:
    found = path.stat()
    return path.read_bytes(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def test_times_are_booking_times(shared: Mounted) -> None:
    """SEMANTICS 1.5"""
    shared.drop("timed.json", pay())
    balance = shared.balance("acc_001")
    wanted = balance["as_of"]["time"]
    newest = (shared / f"transactions/{balance['as_of']['tx']}.json").read_bytes()
    assert json.loads(newest)["time"] == wanted
    files = ["balance.json", "tx.log", "statement.csv", "account.json"]
    for name in (f"transactions/{balance['as_of']['tx']}.json", *(f"accounts/acc_001/{file}" for file in files)):
        assert _time_text((shared / name).stat().st_mtime_ns) == wanted, name
    if shared.status()["entries"] % 256 == 0:  # no tile is partial
        shared.drop("timed-more.json", pay(debit="float", credit="acc_002"))
    entries = shared.status()["entries"]
    last = (shared / f"blocks/{shared.status()['blocks']:08}.json").read_text()
    width, directory = entries % 256, f"{entries // 256:03}.p"
    for name in (
        f"log/tile/0/{directory}/{width}",
        f"log/tile/entries/{directory}/{width}",
        "transactions",
        "accounts",
    ):
        assert _time_text((shared / name).stat().st_mtime_ns) == json.loads(last)["time"], name
    before = time.time_ns()
    shared.drop("timed-2.json", pay())
    assert before <= (shared / "receipts/timed-2.json").stat().st_mtime_ns <= time.time_ns()


def _time_text(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09}Z"


def test_inode_numbers_survive_a_restart(ledger: Mounted, daemons: Callable[..., Daemon]) -> None:
    """SEMANTICS 1.6, SEMANTICS 8.4"""
    ledger.drop("x.json", pay())
    before = {
        str(path.relative_to(ledger.path)): path.stat().st_ino
        for path in walk(ledger.path)
        if path.parent != ledger / "inbox" and ".ledgerfs" not in str(path)
    }
    receipt = ledger.receipt("x.json")
    assert ledger.daemon.stop() == 0
    again = Mounted(daemons(ledger.daemon.store).start().path, ledger.work, ledger.daemon)
    after = {
        str(path.relative_to(again.path)): path.stat().st_ino
        for path in walk(again.path)
        if ".ledgerfs" not in str(path)
    }
    assert before.items() <= after.items()
    fresh = [
        path for path in after.keys() - before.keys() if not path.startswith("digests/") and "/digest-" not in path
    ]
    assert fresh == [], "digests are issued as time goes on"
    assert again.receipt("x.json") == receipt
    assert os.listdir(again / "inbox") == ["atomic", "dry-run"]


def _requests(pid: int) -> int:
    """System calls of reading that a process has made: each FUSE request is at least one."""
    return int(re.findall(r"syscr: (\d+)", Path(f"/proc/{pid}/io").read_text())[0])


def test_a_page_read_twice_costs_nothing(shared: Mounted) -> None:
    """SEMANTICS 1.7"""
    shared.drop("paged.ndjson", lines([pay("0.10")] * 500))
    process = shared.daemon.process
    assert process is not None
    paths = [
        "accounts/acc_001/tx.log",
        "accounts/acc_001/balance.json",
        "transactions/tx_0001.json",
        "log/tile/entries/000",
    ]
    for name in paths:
        with (shared / name).open("rb", buffering=0) as file:
            first = file.read(1 << 16)
            for _ in range(3):  # the clock of the daemon ticks meanwhile: the quietest of some rounds counts
                before = _requests(process.pid)
                for _ in range(1000):
                    assert os.pread(file.fileno(), 1 << 16, 0) == first
                if (quiet := _requests(process.pid) - before) < 20:
                    break
            assert quiet < 20, name


def test_files_can_be_mapped(shared: Mounted) -> None:
    """Shared, private, and while they grow. SEMANTICS 1.7"""
    shared.drop("mapped.json", pay())
    for name in ("accounts/acc_001/tx.log", "accounts/acc_001/balance.json", "transactions/tx_0001.json", "README.txt"):
        content = (shared / name).read_bytes()
        with (shared / name).open("rb") as file:
            for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
                with mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as mapped:
                    assert mapped[:] == content


def test_nothing_is_torn(shared: Mounted) -> None:
    """Readers of changing files get one state in whole, and ask behind its end too. SEMANTICS 1.8"""
    script = """
import json, sys
while True:
    for name in ("balance.json", "account.json"):
        with open(f"{sys.argv[1]}/accounts/acc_002/{name}") as file:
            json.load(file)
"""
    readers = [subprocess.Popen(["python3", "-c", script, shared.path], stderr=subprocess.PIPE) for _ in range(3)]
    for number in range(400):
        shared.drop(f"torn-{number}.json", pay("9.99" if number % 2 else "0.01"))
    for reader in readers:
        assert reader.poll() is None, reader.stderr.read() if reader.stderr else ""
        reader.terminate()
        reader.communicate()


def test_growing_files_grow_at_their_end(shared: Mounted) -> None:
    """tail -f follows. SEMANTICS 1.9"""
    path = shared / "accounts/acc_001/tx.log"
    before = path.read_bytes()
    with subprocess.Popen(["tail", "-n", "0", "-f", path], stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        until_followed(tail.pid, path)
        shared.drop("followed.json", pay(reference="followed"))
        assert json.loads(tail.stdout.readline())["reference"] == "followed"
        tail.terminate()
    assert path.read_bytes().startswith(before)


def test_new_names_are_found_at_once(shared: Mounted) -> None:
    """SEMANTICS 1.10"""
    for number in range(20):
        path = shared / f"accounts/late.{number}/balance.json"
        assert not path.exists()
        shared.drop(
            f"late-{number}.json",
            {"type": "open_account", "account": f"late.{number}", "currency": "JPY", "class": "equity"},
        )
        assert json.loads(path.read_text())["balance"] == "0"


def test_readme(ledger: Mounted) -> None:
    """Every command works as printed. SEMANTICS 2.1"""
    text = (ledger / "README.txt").read_text()
    commands = re.findall(r"^  \$ (.*)$", text, re.MULTILINE)
    assert len(commands) > 20
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)], cwd=ledger.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    assert done.stderr == ""
    codes = {
        name: [line["code"] for line in ledger.receipt(name)]
        for name in os.listdir(ledger / "receipts")
        if "readme" in name
    }
    assert len(codes) == 17
    assert {code for found in codes.values() for code in found} == {"ok"}
    leaf, again = done.stdout.splitlines()[-1], done.stdout.splitlines()[-2].split()[0]
    assert leaf == again
    through = re.search(r"^  (\{\"type\":\"close_period\".*\})$", text, re.MULTILINE)
    assert through
    ledger.drop("period.json", through[1])


def test_account_directory(shared: Mounted) -> None:
    """SEMANTICS 2.2, SEMANTICS 2.3, SEMANTICS 2.4"""
    shared.drop("csv.json", pay(reference='say "hi", twice', effective="2026-02-03"))
    account = shared / "accounts/acc_002"
    assert sorted(os.listdir(account)) == [
        "account.json",
        "balance.json",
        "history",
        "snapshots",
        "statement.csv",
        "statements",
        "tx.log",
    ]
    log = (account / "tx.log").read_bytes()
    newest = (shared / f"transactions/{shared.balance('acc_002')['as_of']['tx']}.json").read_bytes()
    assert log.endswith(b"\n" + newest + b"\n")
    last = (account / "statement.csv").read_bytes().decode().removesuffix("\r\n").rsplit("\r\n", 1)[-1]
    assert last.split(",", 1)[1].startswith(
        f'2026-02-03,{shared.balance("acc_002")["as_of"]["tx"]},transfer,"say ""hi"", twice",,1.00,'
    )


def test_snapshots(shared: Mounted) -> None:
    """SEMANTICS 2.5"""
    shared.drop("then.json", pay("3.00"))
    then = shared.balance("acc_001")
    as_of = then["as_of"]
    directory = shared / "accounts/acc_001/snapshots"
    assert [name for name in os.listdir(directory) if "digest-" not in name] == [f"block-{as_of['seal']}.json"]
    shared.drop("now.json", pay("4.00"))
    names = [f"block-{as_of['seal']}", f"size-{as_of['index'] + 1}", f"tx-{int(as_of['tx'][3:])}", as_of["time"]]
    paths = [directory / f"{name}.json" for name in names]
    assert [json.loads(path.read_text()) for path in paths] == [then] * 4
    assert len({path.stat().st_ino for path in paths}) == 1
    for name in ("block-0", "block-999999", "2199-01-01T00:00:00Z", "size-3", "x", "2026-01-01T00:00:00Z"):
        assert not (directory / f"{name}.json").exists(), name
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    time.sleep(1.1)
    assert json.loads((directory / f"{now}.json").read_text()) == shared.balance("acc_001")


def test_entries_are_exact(shared: Mounted) -> None:
    """Transactions, blocks and bundles are the bytes of the journal; tiles are their hashes. SEMANTICS 2.6, SEMANTICS 2.7"""
    shared.drop("tiles.ndjson", lines([pay("0.10")] * 300))
    shared.seal()
    if shared.status()["entries"] % 256 == 0:  # no tile is partial
        shared.drop("tiles-more.json", pay("0.10"))
    stream = journal(shared.daemon.store)
    full, width = divmod(shared.status()["entries"], 256)
    bundles = [f"log/tile/entries/{number:03}" for number in range(full)] + [
        f"log/tile/entries/{full:03}.p/{width}"
    ] * (width > 0)
    assert b"".join((shared / name).read_bytes() for name in bundles) == stream
    entries = [entry for name in bundles for entry in decode_bundle((shared / name).read_bytes())]
    leaves = b"".join(hashlib.sha256(b"\0" + entry).digest() for entry in entries)
    tiles = [name.replace("entries", "0") for name in bundles]
    assert b"".join((shared / name).read_bytes() for name in tiles) == leaves
    transactions = [entry for entry in entries if "tx" in json.loads(entry)]
    for number, entry in enumerate(transactions, 1):
        assert (shared / f"transactions/tx_{number:04}.json").read_bytes() == entry
    seals = [entry for entry in entries if json.loads(entry)["t"] == "seal/1"]
    for height, entry in enumerate(seals, 1):
        assert (shared / f"blocks/{height:08}.json").read_bytes() == entry
    for name in (
        "transactions/tx_1.json",
        "blocks/1.json",
        "log/tile/entries/999",
        "log/tile/0/000.p/256",
        "log/tile/0/000.p/0",
    ):
        assert not (shared / name).exists()
    assert (shared / "log/tile/0/000.p/17").read_bytes() == leaves[: 17 * 32]
    assert sorted(os.listdir(shared / "log/tile/0"))[-1] == f"{full:03}.p"


def test_control_files(shared: Mounted) -> None:
    """SEMANTICS 2.8"""
    control = shared / ".ledgerfs"
    assert sorted(os.listdir(control)) == [
        "currencies.tsv",
        "errors.tsv",
        "health",
        "limits.json",
        "metrics.prom",
        "schema",
        "status.json",
        "trusted_root.json",
        "verify.html",
        "version",
    ]
    assert (control / "health").read_text() == "ok\n"
    assert (control / "errors.tsv").read_text().splitlines()[1].startswith("0\tok\t0\t")
    assert json.loads((control / "limits.json").read_text())["batch_intents_max"] == 8192
    assert (control / "version").read_text().startswith("ledgerfs ")
    genesis = json.loads((shared / "log/tile/entries/000.p/1").read_bytes()[2:])
    assert hashlib.sha256((control / "currencies.tsv").read_bytes()).hexdigest() == genesis["currencies"]
    metrics = (control / "metrics.prom").read_text()
    assert f"ledgerfs_transactions {float(shared.transactions())}" in metrics
    with (control / "status.json").open("rb", buffering=0) as file:
        first = file.read(4096)
        shared.drop("meanwhile.json", pay())
        file.seek(0)
        assert file.read(4096) == first
    assert shared.status()["transactions"] == json.loads(first)["transactions"] + 1


class Dirent(ctypes.Structure):
    """struct dirent of this libc."""

    _fields_ = (
        ("d_ino", ctypes.c_ulong),
        ("d_off", ctypes.c_long),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


def readdir(path: Path) -> list[tuple[str, int, int]]:
    """Name, inode number and type of every entry, as the kernel gives them."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.opendir(bytes(path)))
    found = []
    while entry := libc.readdir(stream):
        one = Dirent.from_address(entry)
        found.append((one.d_name.decode(), one.d_ino, one.d_type))
    libc.closedir(stream)
    return found


def test_listings(shared: Mounted) -> None:
    """SEMANTICS 2.10"""
    shared.drop("listed.json", pay())
    for name in (
        "",
        "inbox",
        "accounts",
        "accounts/acc_001",
        "transactions",
        "blocks",
        "log/tile/0",
        "receipts",
        ".ledgerfs",
    ):
        path = shared / name
        entries = readdir(path)
        assert [entry[0] for entry in entries[:2]] == [".", ".."]
        assert entries[0][1] == path.stat().st_ino
        if name:
            assert entries[1][1] == path.parent.stat().st_ino
        for child, number, kind in entries[2:]:
            found = (path / child).lstat()
            assert found.st_ino == number, child
            assert kind == (4 if stat.S_ISDIR(found.st_mode) else 8)


def test_long_listings(shared: Mounted) -> None:
    """In order, whole, and nothing stays in the kernel; a listing goes on where it was. SEMANTICS 2.9"""
    for part in range(5):
        shared.drop(f"many-{part}.ndjson", lines([pay("0.01")] * 4000))
    count = shared.transactions()
    held = _kernel_inodes()
    names = [name for name, _, _ in readdir(shared / "transactions")][2:]
    assert names == [f"tx_{number:04}.json" for number in range(1, count + 1)]
    assert _kernel_inodes() - held < count // 4
    with os.scandir(shared / "transactions") as listing:
        first = [next(listing).name for _ in range(10)]
        shared.drop("one-more.json", pay())
        rest = [entry.name for entry in listing]
    assert first + rest == [f"tx_{number:04}.json" for number in range(1, count + 2)]


def _kernel_inodes() -> int:
    """Inodes of FUSE files that the kernel holds."""
    found = re.search(r"^fuse_inode\s+(\d+)", Path("/proc/slabinfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


READ_ONLY = {
    "create": lambda root: (root / "transactions/x.json").write_text("{}"),
    "create-root": lambda root: (root / "x").write_text("{}"),
    "write": lambda root: (root / "transactions/tx_0001.json").open("r+b"),
    "append": lambda root: (root / "accounts/acc_001/tx.log").open("ab"),
    "truncate": lambda root: os.truncate(root / "accounts/acc_001/tx.log", 0),
    "unlink": lambda root: (root / "blocks/00000001.json").unlink(),
    "rmdir": lambda root: (root / "accounts/empty").rmdir(),
    "mkdir": lambda root: (root / "accounts/new").mkdir(),
    "symlink": lambda root: (root / "link").symlink_to("x"),
    "link": lambda root: os.link(root / "README.txt", root / "accounts/R"),
    "mknod": lambda root: os.mknod(root / "log/pipe", 0o10644),
    "rename": lambda root: (root / "README.txt").rename(root / "README"),
    "rename-into": lambda root: (root / "README.txt").rename(root / "inbox/x.json"),
    "rename-out": lambda root: (root / "inbox/accounts.ndjson").rename(root / "accounts/x.json"),
    "chmod": lambda root: (root / "README.txt").chmod(0o777),
    "chown": lambda root: os.chown(root / "accounts", 1, 1),
    "utime": lambda root: os.utime(root / "README.txt"),
    "setxattr": lambda root: os.setxattr(root / "README.txt", "user.x", b"1"),
    "removexattr": lambda root: os.removexattr(root / "transactions/tx_0001.json", "user.ledgerfs.index"),
    "receipt": lambda root: (root / "receipts/accounts.ndjson").unlink(),
}


@pytest.mark.parametrize("what", READ_ONLY)
def test_the_rest_is_read_only(shared: Mounted, what: str) -> None:
    """SEMANTICS 9.1, SEMANTICS 6.4"""
    with pytest.raises(OSError) as error:  # noqa: PT011  (which one is the point)
        READ_ONLY[what](shared.path)
    assert error.value.errno == errno.EROFS


def test_extended_attributes(shared: Mounted) -> None:
    """SEMANTICS 9.2"""
    shared.drop("attributed.json", pay())
    as_of = shared.balance("acc_001")["as_of"]
    entry = shared / f"transactions/{as_of['tx']}.json"
    block = shared / f"blocks/{as_of['seal']:08}.json"
    wanted = {
        "user.ledgerfs.index": str(as_of["index"]),
        "user.ledgerfs.leaf": hashlib.sha256(b"\0" + entry.read_bytes()).hexdigest(),
        "user.ledgerfs.seal": str(as_of["seal"]),
        "user.ledgerfs.as_of": as_of["time"],
    }
    snapshot = shared / f"accounts/acc_001/snapshots/{as_of['time']}.json"
    for path in (entry, shared / "accounts/acc_001/balance.json", snapshot):
        assert {name: os.getxattr(path, name).decode() for name in os.listxattr(path)} == wanted
    assert os.getxattr(block, "user.ledgerfs.leaf").decode() == hashlib.sha256(b"\0" + block.read_bytes()).hexdigest()
    assert os.getxattr(block, "user.ledgerfs.seal").decode() == str(as_of["seal"])
    for path in (shared / "receipts/attributed.json", shared / "inbox/attributed.json"):
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {
            "user.ledgerfs.status": b"committed",
            "user.ledgerfs.code": b"ok",
        }
    with pytest.raises(OSError, match="Disk quota"):
        shared.drop("poor.ndjson", lines([pay(), pay("99999999.00")]))
    assert os.getxattr(shared / "receipts/poor.ndjson", "user.ledgerfs.code") == b"insufficient_funds"
    with pytest.raises(OSError, match="No data"):
        os.getxattr(entry, "user.ledgerfs.other")
    assert os.listxattr(shared / "README.txt") == []


def test_statfs(shared: Mounted) -> None:
    """SEMANTICS 9.3"""
    ours, theirs = os.statvfs(shared.path), os.statvfs(shared.daemon.store)
    assert (ours.f_blocks, ours.f_frsize, ours.f_namemax) == (theirs.f_blocks, theirs.f_frsize, 255)
    assert subprocess.run(["df", shared.path], capture_output=True, check=False).returncode == 0
