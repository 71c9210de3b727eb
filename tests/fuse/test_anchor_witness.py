"""A real witness as an anchor: its cosignatures in digests/ and in log/checkpoint; it refuses the insider, and that is seen."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import create
from ledgerfsd.merkle.witness_policy import parse
from ledgerfsd.service.keys import parse_trusted_root
from tests.conftest import LEDGER, SEGMENT_BYTES, Daemon
from tests.fuse.anchor_servers import status
from tests.fuse.conftest import ACCOUNTS, lines, pay, until
from tests.fuse.test_anchoring import drop, health, ledgerfs
from tests.fuse.test_digests import digest, latest
from tests.witnesses import WitnessProcess


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    made = WitnessProcess(tmp_path / "witness").start()
    yield made
    made.kill()


def settings(tmp_path: Path, witness: WitnessProcess) -> list[str]:
    path = tmp_path / "ledger.toml"
    path.write_text(
        "anchor_seconds = 1\nanchor_limit_seconds = 5\n"
        f'[[anchors]]\nkind = "witness"\nname = "w1"\nurl = "{witness.url}"\nvkey = "{witness.witness.encode()}"\n'
    )
    return ["--config", str(path)]


@pytest.mark.slow
def test_a_witness_cosigns_digests_and_refuses_the_insider(fuse: None, tmp_path: Path, witness: WitnessProcess) -> None:
    """SEMANTICS 11.6, SEMANTICS 11.5"""
    options = settings(tmp_path, witness)
    daemon = Daemon(create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "mount", options)
    daemon.start()
    try:
        until(lambda: "knows" in str(status(daemon.path)["anchors"][0]["failure"]) or "know the log" in health(daemon))
        trusted = daemon.path / ".ledgerfs/trusted_root.json"
        (vkey,) = (key["vkey"] for key in json.loads(trusted.read_text())["keys"])
        assert ledgerfs("witness", "trust", "--dir", witness.directory, "--vkey", vkey).returncode == 0
        drop(daemon, "1.ndjson", lines(ACCOUNTS))
        drop(daemon, "2.json", json.dumps(pay("1.00", id="victim")))
        until(lambda: status(daemon.path)["anchors"][0]["unanchored_entries"] == 0)
        path = latest(daemon)
        assert [(each["name"], each["outcome"]) for each in digest(path)["anchors"]] == [("w1", "anchored")]
        policy = tmp_path / "policy"
        policy.write_text(f"log {vkey}\nwitness w1 {witness.witness.encode()} {witness.url}\nquorum w1\n")
        cosigned = (path / "checkpoint").read_bytes() + (path / "w1.cosig").read_bytes()
        parse(policy.read_bytes()).verify(cosigned)
        assert (daemon.path / "log/checkpoint").read_bytes() == cosigned
        root = tmp_path / "root.json"
        root.write_bytes(trusted.read_bytes())
        shutil.copytree(path, tmp_path / "kept")
        assert parse_trusted_root(root.read_bytes(), "root").verify(cosigned).size == int(path.name)
        assert daemon.stop() == 0
    finally:
        daemon.kill()
    forged = Daemon(create(tmp_path / "forged", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "mount2", options)
    shutil.copytree(daemon.store / "keys", forged.store / "keys")
    (forged.store / "keys/last-signed").unlink()
    forged.start()
    try:
        drop(forged, "1.ndjson", lines(ACCOUNTS))
        drop(forged, "2.json", json.dumps(pay("99999.00", id="victim")))
        while status(forged.path)["entries"] <= int(path.name):
            drop(forged, f"{time.monotonic_ns()}.json", json.dumps(pay()))
        until(lambda: status(forged.path)["anchors"][0]["contradicted"])
        assert "two histories" in health(forged)

        def outcomes() -> set[str]:
            return {digest(each)["anchors"][0]["outcome"] for each in (forged.path / "digests").iterdir()}

        until(lambda: "contradicted" in outcomes())
        assert "anchored" not in outcomes()
        assert forged.stop() == 0
    finally:
        forged.kill()
    for store, code in ((daemon.store, 0), (forged.store, 4)):
        where = ("--anchor", tmp_path / "kept", "--trusted-root", root, "--policy", policy)
        done = ledgerfs("verify", "--store", store, *where)
        assert (done.returncode, "the history was rewritten" in done.stderr) == (code, code == 4), done.stderr
