"""Checkpoints, proofs and keys through a real mount (docs/SEMANTICS.md, sections 2 and 10)."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledgerfsd.merkle import note, tlog_proof
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.proof import ProofError, verify_consistency
from ledgerfsd.service.keyring import Keyring
from ledgerfsd.service.keys import TrustedRoot, parse_trusted_root, usual_directory
from tests.conftest import LEDGER, REPOSITORY, Daemon
from tests.fuse.conftest import Mounted, lines, pay, until, with_accounts

GOPATH = "/usr/share/gocode"  # Debian's golang-golang-x-mod-dev
SECONDS = 10.0  # that a reader waits for a signature (SEMANTICS 10.5)


def trusted(ledger: Mounted) -> TrustedRoot:
    """The keys, as the mount shows them."""
    return parse_trusted_root((ledger / ".ledgerfs/trusted_root.json").read_bytes(), "the mount")


def head(ledger: Mounted) -> tuple[bytes, Checkpoint]:
    """The newest checkpoint, verified."""
    data = (ledger / "log/checkpoint").read_bytes()
    return data, trusted(ledger).verify(data)


def verify(ledger: Mounted, number: int, data: bytes) -> Checkpoint:
    """Verify the proof of a transaction against its file."""
    root = trusted(ledger)
    entry = (ledger / f"transactions/tx_{number:04}.json").read_bytes()
    verifiers = [key.verifier for key in root.keys]
    found, checkpoint = tlog_proof.verify(data, entry, root.ledger, verifiers)
    assert root.verify(found.checkpoint) == checkpoint
    return checkpoint


def entries(ledger: Mounted) -> int:
    """How many entries there are."""
    count: int = ledger.status()["entries"]
    return count


def signer_pid(ledger: Mounted) -> int:
    """The process of the signer: the daemon's only child."""
    assert ledger.daemon.process is not None
    pid = ledger.daemon.process.pid
    # Whichever thread has started it.
    (child,) = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return int(child)


def test_the_checkpoint_is_of_the_newest_seal(ledger: Mounted) -> None:
    """SEMANTICS 2.11"""
    seen = []
    for number in range(5):
        ledger.drop(f"{number}.json", pay())
        data, checkpoint = head(ledger)
        assert checkpoint.origin == LEDGER
        assert checkpoint.extensions == ()
        newest = sorted((ledger / "blocks").iterdir())[-1]
        assert checkpoint.size == json.loads(newest.read_bytes())["index"] + 1 == entries(ledger)
        assert (ledger / "log/checkpoint").stat().st_size == len(data)
        assert (ledger / "log/checkpoint").read_bytes() == data, "signed once for each size"
        assert (ledger / "log/checkpoint").stat().st_mtime_ns == newest.stat().st_mtime_ns
        seen.append(checkpoint.size)
    assert seen == sorted(set(seen))


def test_a_proof_is_there_when_close_returns(ledger: Mounted) -> None:
    """SEMANTICS 2.12"""
    before = ledger.transactions()
    assert not (ledger / f"proofs/tx_{before + 1:04}.tlog-proof").exists()
    for number in range(before + 1, before + 30):
        ledger.drop(f"{number}.json", pay(reference=str(number)))
        path = ledger / f"proofs/tx_{number:04}.tlog-proof"
        size = path.stat().st_size
        data = path.read_bytes()
        assert len(data) == size
        assert verify(ledger, number, data).size <= entries(ledger)
    with pytest.raises(ProofError):
        verify(ledger, before, data)
    for wrong in ("tx_1.tlog-proof", "tx_0000.tlog-proof", "tx_99999.tlog-proof", "tx_0001.json", "tx_0001"):
        assert not (ledger / "proofs" / wrong).exists()
    names = os.listdir(ledger / "proofs")
    assert names == ["consistency", *(f"tx_{number:04}.tlog-proof" for number in range(1, before + 30))]


def signatures(ledger: Mounted) -> int:
    """How many checkpoints were signed since the start."""
    lines = (ledger / ".ledgerfs/metrics.prom").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("ledgerfs_checkpoints_signed_total ")]
    return int(float(line.split()[1]))


def test_for_a_reader_of_new_proofs_the_next_transactions_are_signed_ahead(ledger: Mounted) -> None:
    """Once for each reader's proof, never for nobody. SEMANTICS 2.12"""
    ledger.drop("first.json", pay())
    number = ledger.transactions()
    verify(ledger, number, (ledger / f"proofs/tx_{number:04}.tlog-proof").read_bytes())
    for turn in range(1, 4):
        before = signatures(ledger)
        ledger.drop(f"next-{turn}.json", pay())
        until(lambda before=before: signatures(ledger) == before + 1)  # type: ignore[misc]
        assert verify(ledger, number + turn, (ledger / f"proofs/tx_{number + turn:04}.tlog-proof").read_bytes())
        assert signatures(ledger) == before + 1, "it was there already"
    before = signatures(ledger)
    (ledger / f"proofs/tx_{number:04}.tlog-proof").read_bytes()  # an old one asks for nothing
    for each in range(20):
        ledger.drop(f"nobody-{each}.json", pay())
    until(lambda: signatures(ledger) > before)
    assert signatures(ledger) == before + 1
    for each in range(20):
        ledger.drop(f"nobody-again-{each}.json", pay())
    assert signatures(ledger) == before + 1


def test_an_old_proof_holds_for_ever(ledger: Mounted) -> None:
    """SEMANTICS 2.12, SEMANTICS 2.13"""
    ledger.drop("first.json", pay())
    number = ledger.transactions()
    path = ledger / f"proofs/tx_{number:04}.tlog-proof"
    old = path.read_bytes()
    checkpoint = verify(ledger, number, old)
    ledger.drop("many.ndjson", lines([pay("0.01", id=f"m-{each}") for each in range(1000)]))
    assert ledger.transactions() == number + 1000
    ledger.seal()
    assert verify(ledger, number, old) == checkpoint
    _, newest = head(ledger)
    new = path.read_bytes()
    assert verify(ledger, number, new) == newest
    assert newest.size > checkpoint.size + 1000
    for each in (1, number + 1, number + 255, number + 1000):
        assert verify(ledger, each, (ledger / f"proofs/tx_{each:04}.tlog-proof").read_bytes()) == newest
    path = ledger / f"proofs/consistency/{checkpoint.size}-{newest.size}"
    size = path.stat().st_size
    data = path.read_bytes()
    assert len(data) == size
    hashes = tlog_proof.parse_hashes(data)
    verify_consistency(checkpoint.size, newest.size, checkpoint.root, newest.root, hashes)
    with pytest.raises(ProofError):
        verify_consistency(checkpoint.size, newest.size, newest.root, newest.root, hashes)


def test_consistency_between_any_two_seals(ledger: Mounted) -> None:
    """SEMANTICS 2.13"""
    heads = [head(ledger)[1]]
    for number in range(6):
        ledger.drop(f"{number}.json", pay())
        heads.append(head(ledger)[1])
    directory = ledger / "proofs/consistency"
    inodes = set()
    for at, old in enumerate(heads):
        for new in heads[at:]:
            path = directory / f"{old.size}-{new.size}"
            verify_consistency(old.size, new.size, old.root, new.root, tlog_proof.parse_hashes(path.read_bytes()))
            inodes.add(path.stat().st_ino)
    assert len(inodes) == 28
    first, second, newest = heads[0].size, heads[1].size, heads[-1].size
    for wrong in (
        f"{second}-{first}",
        f"{first}-{newest + 1}",
        f"{first - 1}-{newest}",
        f"0-{newest}",
        f"0{first}-{newest}",
        f"{first}-{newest}-",
        f"{first}",
        "-",
        f"{first}-{10**30}",
    ):
        with pytest.raises(FileNotFoundError):
            (directory / wrong).stat()
    assert os.listdir(directory) == [f"{heads[-2].size}-{newest}"]


def test_many_readers_while_the_ledger_grows(ledger: Mounted) -> None:
    """No reader is refused because another was quicker, and all that was signed is one history. SEMANTICS 2.11"""
    signed: set[bytes] = set()
    over = threading.Event()

    def read(_: int) -> None:
        while not over.is_set():
            signed.add((ledger / "log/checkpoint").read_bytes())
            number = ledger.transactions()
            verify(ledger, number, (ledger / f"proofs/tx_{number:04}.tlog-proof").read_bytes())

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, each) for each in range(8)]
        # At least so many commits, and as many more as it takes until some checkpoints were signed meanwhile.
        for number in range(5000):
            ledger.drop(f"{number}.json", pay("0.01"))
            if number >= 200 and len(signed) > 5:
                break
        over.set()
        for reader in readers:
            reader.result()
    heads = sorted({trusted(ledger).verify(data) for data in signed}, key=lambda found: found.size)
    assert len(heads) > 5
    assert len({found.size for found in heads}) == len(heads)
    for old, new in itertools.pairwise(heads):
        data = (ledger / f"proofs/consistency/{old.size}-{new.size}").read_bytes()
        verify_consistency(old.size, new.size, old.root, new.root, tlog_proof.parse_hashes(data))
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"
    assert "no checkpoint" not in ledger.daemon.log.read_text()


def key(ledger: Mounted, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ledgerfs key``."""
    command = [REPOSITORY / ".venv/bin/python", "-m", "ledgerfsd.cli.main", "key", *arguments]
    store = ["--store", str(ledger.daemon.store), "--json"]
    return subprocess.run([*command, *store], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_keys_change_while_mounted(ledger: Mounted) -> None:
    """SEMANTICS 2.14"""
    directory = usual_directory(ledger.daemon.store)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.glob("*.key")} == {0o600}
    (first,) = trusted(ledger).keys
    data, checkpoint = head(ledger)
    second = json.loads(key(ledger, "rotate").stdout)
    assert [each.status for each in trusted(ledger).keys] == ["retiring", "active"]
    both, again = head(ledger)
    assert again.size > checkpoint.size  # the log says first who signs from now on
    assert {signature.key_id for signature in note.parse(both).signatures} == {
        first.verifier.key_id,
        int(second["id"], 16),
    }
    assert key(ledger, "revoke", second["id"]).returncode == 3, "the active key"
    assert key(ledger, "revoke", first.key_id).returncode == 0
    assert not (directory / f"{first.key_id}.key").exists()
    ledger.drop("later.json", pay())
    later, newest = head(ledger)
    assert [f"{signature.key_id:08x}" for signature in note.parse(later).signatures] == [second["id"]]
    assert trusted(ledger).verify(data) == checkpoint, "what was signed in time is believed"
    # What the revoked key signs for a later size is not.
    assert trusted(ledger).keys[0].valid_to_size == again.size < newest.size
    assert not trusted(ledger).keys[0].speaks_for(newest.size)
    listed = json.loads(key(ledger, "list").stdout)
    assert [each["status"] for each in listed["keys"]] == ["revoked", "active"]
    assert (ledger / ".ledgerfs/health").read_text() == "ok\n"


def test_the_signer_is_started_anew_and_commits_do_not_wait(ledger: Mounted) -> None:
    """SEMANTICS 10.5"""
    pid = signer_pid(ledger)
    assert b"ledgerfsd.service.signer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGSTOP)  # it hangs: commits do not
    ledger.drop("meanwhile.json", pay())
    assert signer_pid_or_0(ledger) == pid, "the commit did not wait until it was given up"
    began = time.monotonic()
    with pytest.raises(OSError, match="Input/output"):
        (ledger / "log/checkpoint").read_bytes()
    assert time.monotonic() - began < SECONDS + 2
    until(lambda: (ledger / ".ledgerfs/health").read_text() == "ok\n" and signer_pid_or_0(ledger) not in (0, pid))
    number = ledger.transactions()
    verify(ledger, number, (ledger / f"proofs/tx_{number:04}.tlog-proof").read_bytes())
    # It cannot come back without its key: health says so, commits go on, and so do files that need no new signature.
    directory = usual_directory(ledger.daemon.store)
    (private,) = directory.glob("*.key")
    private.rename(directory / "hidden")
    os.kill(signer_pid(ledger), signal.SIGKILL)
    until(lambda: "no checkpoints can be signed" in (ledger / ".ledgerfs/health").read_text())
    ledger.drop("without.json", pay())
    assert ledger.transactions() == number + 1
    until(lambda: private.name in (ledger / ".ledgerfs/health").read_text())
    with pytest.raises(OSError, match="Input/output") as error:
        (ledger / f"proofs/tx_{number + 1:04}.tlog-proof").read_bytes()
    assert error.value.errno == errno.EIO
    (directory / "hidden").rename(private)
    until(lambda: (ledger / ".ledgerfs/health").read_text() == "ok\n")
    verify(ledger, number + 1, (ledger / f"proofs/tx_{number + 1:04}.tlog-proof").read_bytes())
    metrics = dict(
        line.rsplit(" ", 1) for line in (ledger / ".ledgerfs/metrics.prom").read_text().splitlines() if line[0] != "#"
    )
    assert float(metrics["ledgerfs_signer_starts_again_total"]) >= 2
    assert signatures(ledger) >= 2
    assert "Traceback" not in ledger.daemon.log.read_text()


def signer_pid_or_0(ledger: Mounted) -> int:
    """0: there is none at the moment."""
    try:
        return signer_pid(ledger)
    except ValueError:
        return 0


def test_the_signer_ends_with_its_daemon(ledger: Mounted) -> None:
    """SEMANTICS 10.5"""
    pid = signer_pid(ledger)
    ledger.daemon.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())


def mount_again(daemons: Callable[..., Daemon], store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to refuse."""
    place = daemons(store).path
    command = [REPOSITORY / ".venv/bin/python", "-m", "ledgerfsd", "--store", store, "--mount", place, *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("signed_ahead", [True, False])
def test_a_store_that_was_rolled_back_is_not_mounted(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path, signed_ahead: bool
) -> None:
    """Shorter than what was signed, or of another content at that size. SEMANTICS 10.6"""
    keys = tmp_path / "elsewhere"
    daemon = daemons(store, "--keys", str(keys)).start()
    ledger = with_accounts(daemon, tmp_path / "work")
    ledger.drop("one.json", pay())
    assert daemon.stop() == 0
    shutil.copytree(store, tmp_path / "old")
    daemon.start()
    for number in range(3):
        ledger.drop(f"{number}.json", pay())
    checkpoint = head(ledger)[1]
    assert daemon.stop() == 0
    assert Keyring(keys, LEDGER).last_signed() == checkpoint
    old = tmp_path / "old"
    if not signed_ahead:  # the history goes another way and gets longer than what was signed
        other = daemons(old, "--keys", str(tmp_path / "other")).start()
        Mounted(other.path, tmp_path, other).drop("x.ndjson", lines([pay("0.02", id=f"x{each}") for each in range(99)]))
        assert other.stop() == 0
    refused = mount_again(daemons, old, "--keys", str(keys))
    assert refused.returncode == 4
    assert ("was rolled back" if signed_ahead else "another root") in refused.stderr
    assert "restore the newest journal/" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert daemons(store, "--keys", str(keys)).start().stop() == 0, "the store itself is as good as ever"


def test_a_store_of_another_ledger_does_not_get_these_keys(
    store: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    Keyring(tmp_path / "keys", "ledger.example/other").create()
    refused = mount_again(daemons, store, "--keys", str(tmp_path / "keys"))
    assert refused.returncode == 3
    assert "is of the ledger 'ledger.example/other'" in refused.stderr


def prove(ledger: Mounted, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``ledgerfs prove``."""
    command = [REPOSITORY / ".venv/bin/python", "-m", "ledgerfsd.cli.main", "prove", *map(str, arguments)]
    mount = ["--mount", str(ledger.path)]
    return subprocess.run([*command, *mount], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_prove(ledger: Mounted, tmp_path: Path) -> None:
    """What the command fetches, verifies and keeps; and that it can say no."""
    kept, root = tmp_path / "kept.tlog-proof", tmp_path / "root.json"
    shutil.copy(ledger / ".ledgerfs/trusted_root.json", root)
    first = tmp_path / "first"
    first.write_bytes(head(ledger)[0])
    ledger.drop("x.json", pay())
    number = ledger.transactions()
    done = prove(ledger, "tx", number, "--trusted-root", root, "-o", kept)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
    done = prove(ledger, "tx", f"tx_{number:04}", "--json")
    assert json.loads(done.stdout)["holds"] is True
    entry = ledger / f"transactions/tx_{number:04}.json"
    vkey = trusted(ledger).keys[0].vkey
    done = prove(ledger, "tx", number, "--check", kept, "--entry", entry, "--vkey", vkey)
    assert done.returncode == 0, done.stderr
    stranger = note.generate(LEDGER).verifier().encode()
    done = prove(ledger, "tx", number, "--check", kept, "--entry", entry, "--vkey", stranger)
    assert (done.returncode, "trusted key" in done.stderr) == (4, True)
    other = ledger / "transactions/tx_0001.json"
    done = prove(ledger, "tx", number, "--check", kept, "--entry", other, "--vkey", vkey)
    assert (done.returncode, "does not lead to the root" in done.stderr) == (4, True)
    done = prove(ledger, "tx", number - 1, "--check", kept, "--entry", entry, "--vkey", vkey)
    assert (done.returncode, "is not transaction" in done.stderr) == (1, True)
    assert "there is no transaction" in prove(ledger, "tx", 999).stderr
    done = prove(ledger, "consistency", first, "--trusted-root", root, "-o", tmp_path / "consistency")
    assert done.returncode == 0, done.stderr
    second = tmp_path / "second"
    second.write_bytes(head(ledger)[0])
    done = prove(ledger, "consistency", first, second, "--check", tmp_path / "consistency", "--vkey", vkey, "--json")
    assert json.loads(done.stdout)["new_size"] == entries(ledger)
    done = prove(ledger, "consistency", first, second, "--check", kept, "--vkey", vkey)
    assert done.returncode == 4
    assert prove(ledger, "consistency", second, first, "--vkey", vkey).returncode == 1


@pytest.fixture(scope="module")
def noteread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Needs Debian's golang-go and golang-golang-x-mod-dev (tools/install-system test); no network, no module."""
    there = tmp_path_factory.mktemp("noteread")
    settings = {"GO111MODULE": "off", "GOPATH": GOPATH, "GOFLAGS": "", "CGO_ENABLED": "0"}
    built = subprocess.run(
        ["go", "build", "-o", there / "noteread", "."],
        cwd=REPOSITORY / "tests" / "third_party" / "noteread",
        env=os.environ | settings | {"GOCACHE": str(there / "cache")},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return there / "noteread"


def test_go_sumdb_verifies_checkpoints_and_proofs(noteread: Path, ledger: Mounted, tmp_path: Path) -> None:
    """Other people's code: golang.org/x/mod/sumdb/note and tlog, with one public key."""
    vkey = trusted(ledger).keys[0].vkey

    def go(*arguments: object, key: str = vkey) -> subprocess.CompletedProcess[str]:
        return subprocess.run([noteread, "-vkey", key, *map(str, arguments)], capture_output=True, text=True)

    older = tmp_path / "older"
    older.write_bytes(head(ledger)[0])
    ledger.drop("many.ndjson", lines([pay("0.01", id=f"m-{each}") for each in range(700)]))
    ledger.seal()
    newer = tmp_path / "newer"
    newer.write_bytes(head(ledger)[0])
    old, new = (trusted(ledger).verify(path.read_bytes()) for path in (older, newer))
    assert go("checkpoint", ledger / "log/checkpoint").stdout == f"{new.size}\n"
    for number in (1, 2, 300, 701):
        files = ledger / f"proofs/tx_{number:04}.tlog-proof", ledger / f"transactions/tx_{number:04}.json"
        done = go("tx", *files)
        assert (done.returncode, done.stdout) == (0, f"{new.size}\n"), done.stderr
    path = ledger / f"proofs/consistency/{old.size}-{new.size}"
    assert go("consistency", path, older, newer).stdout == f"{new.size}\n"
    # The program can fail.
    assert go("tx", files[0], ledger / "transactions/tx_0001.json").returncode == 1
    assert go("consistency", path, newer, older).returncode == 1
    assert go("checkpoint", newer, key=note.generate(LEDGER).verifier().encode()).returncode == 1
