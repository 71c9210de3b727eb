"""Each kind of anchor against a real counterpart; and the insider with root and the signing key, found by each of them."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledgerfsd.journal.layout import create
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.service.anchors import rfc3161
from ledgerfsd.service.anchors.kinds import Unreachable
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.anchor_servers import BUCKET, CREDENTIALS, REGION, Authority, S3Proxy, client, s3_server, status
from tests.fuse.conftest import ACCOUNTS, lines, pay, until
from tests.fuse.test_anchoring import drop, gauges, health, ledgerfs
from tests.fuse.test_digests import digest, latest

APPEND = 0x20
GET_FLAGS = 0x80086601

SETTINGS = """\
anchor_seconds = 1
anchor_limit_seconds = 5

[[anchors]]
kind = "folder"
name = "worm"
path = "{worm}"

[[anchors]]
kind = "s3"
name = "audit"
bucket = "{bucket}"
prefix = "main/"
endpoint_url = "{s3}"
region = "{region}"
retention_days = 30
timeout_seconds = 10

[[anchors]]
kind = "rfc3161"
name = "tsa"
url = "{tsa}"
tsa_cert = "{roots}"
timeout_seconds = 3
"""


@dataclass
class Place:
    """A mounted ledger with an anchor of each kind."""

    daemon: Daemon
    worm: Path
    s3: str
    authority: Authority

    def outcomes(self, path: Path) -> dict[str, str]:
        """Anchor → what came of a digest."""
        return {anchor["name"]: anchor["outcome"] for anchor in digest(path)["anchors"]}

    def commit(self, text: str) -> None:
        drop(self.daemon, f"{time.monotonic_ns()}.ndjson", text)

    def whole(self) -> bool:
        """Whether every anchor speaks of the whole log."""
        return place_is_whole(self.daemon)


@pytest.fixture
def worm(tmp_path: Path) -> Iterator[Path]:
    """A folder in which names can only be added, on a file system of its own: ext4 on a loop device, chattr +a."""
    image, folder = tmp_path / "worm.img", tmp_path / "worm"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True, capture_output=True)
    try:
        inside = folder / "checkpoints"
        inside.mkdir()
        with open(inside / "probe", "w"):
            pass
        (inside / "probe").unlink()
        subprocess.run(["chattr", "+a", inside], check=True, capture_output=True)
        yield inside
    finally:
        subprocess.run(["umount", folder], check=True, capture_output=True)


@pytest.fixture
def place(fuse: None, tmp_path: Path, worm: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    authority = Authority(tmp_path / "authority")
    with s3_server(tmp_path / "s3.log") as s3, authority.serving() as tsa:
        settings = tmp_path / "ledger.toml"
        values = {"worm": worm, "bucket": BUCKET, "s3": s3, "region": REGION, "tsa": tsa, "roots": authority.roots}
        settings.write_text(SETTINGS.format(**values))
        store = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
        daemon = Daemon(store, tmp_path / "mount", ["--config", str(settings)]).start()
        try:
            yield Place(daemon, worm, s3, authority)
        finally:
            daemon.kill()


@pytest.mark.slow
def test_an_anchor_of_each_kind_and_an_insider_whom_each_finds(place: Place, tmp_path: Path) -> None:
    """SEMANTICS 11.2, SEMANTICS 11.5"""
    daemon = place.daemon
    place.commit(lines(ACCOUNTS))
    place.commit(lines([pay("1.00", id="victim")]))
    until(place.whole)
    path = latest(daemon)
    until(lambda: place.outcomes(path) == {"worm": "anchored", "audit": "anchored", "tsa": "anchored"})
    assert sorted(each.name for each in path.iterdir()) == ["checkpoint", "digest.json", "tsa.tsr"]
    _the_folder_only_grows(place.worm)
    _the_bucket_refuses(place.s3, path)
    _openssl_says_the_same(place.authority, path)
    _the_log_has_the_hash(daemon, path)
    _no_secret_is_shown(daemon)
    assert gauges(daemon)['ledgerfs_anchor_unanchored_entries{anchor="tsa"}'] == 0
    root, kept = tmp_path / "trusted_root.json", tmp_path / "kept"
    shutil.copy(daemon.path / ".ledgerfs/trusted_root.json", root)
    shutil.copytree(daemon.path / "digests", kept, symlinks=True)
    assert daemon.stop() == 0
    forged = _forged(daemon, tmp_path)
    assert ledgerfs("verify", "--store", forged).returncode == 0, "inside, all looks right"
    stamped = ("--tsa-cert", place.authority.roots)
    for where in (
        (place.worm,),
        (f"s3://{BUCKET}/main/", "--endpoint-url", place.s3),
        (kept / path.name, *stamped),
        (kept, *stamped),
        (daemon.store / "digests", *stamped),
    ):
        done = ledgerfs("verify", "--store", daemon.store, "--trusted-root", root, "--anchor", *where)
        assert done.returncode == 0, done.stderr
        assert "anchors agree" in done.stdout
        assert ("existed at 20" in done.stdout) is (stamped[0] in where)
        done = ledgerfs("verify", "--store", forged, "--trusted-root", root, "--anchor", *where)
        assert (done.returncode, "the history was rewritten" in done.stderr) == (4, True), where
    _a_stamp_that_does_not_hold(daemon.store, kept / path.name, root, tmp_path)
    _the_stand_alone_verifier(daemon, forged, kept, root)


def _forged(daemon: Daemon, tmp_path: Path) -> Path:
    """The store of somebody with root and the key: another amount, everything after it made anew and signed."""
    forged = Daemon(create(tmp_path / "forged", LEDGER, segment_bytes=SEGMENT_BYTES).root, tmp_path / "mount2")
    shutil.copytree(daemon.store / "keys", forged.store / "keys")
    (forged.store / "keys/last-signed").unlink()
    forged.start()
    try:
        drop(forged, "1.ndjson", lines(ACCOUNTS))
        drop(forged, "2.ndjson", lines([pay("99999.00", id="victim")]))
        while status(forged.path)["entries"] < status_entries(daemon):
            drop(forged, f"{time.monotonic_ns()}.json", json.dumps(pay()))
        assert (forged.path / "log/checkpoint").read_bytes()
        assert forged.stop() == 0
    finally:
        forged.kill()
    return forged.store


def status_entries(daemon: Daemon) -> int:
    """Entries of a store that is not mounted any more, as its newest digest says."""
    done = ledgerfs("digest", "show", "--store", daemon.store, "--json")
    return int(json.loads(done.stdout)["size"])


def _the_folder_only_grows(worm: Path) -> None:
    descriptor = os.open(worm, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8)))[0]
    finally:
        os.close(descriptor)
    assert flags & APPEND
    for path in worm.iterdir():
        for attempt in (
            path.unlink,
            lambda path=path: path.rename(worm / "other"),
            lambda path=path: path.write_text(""),
        ):
            with pytest.raises(PermissionError):
                attempt()


def _the_bucket_refuses(url: str, path: Path) -> None:
    """To delete or replace the version, to lock it for less, or less strictly, by whoever has the keys."""
    owner = client(url)
    key = f"main/{int(path.name):020}.checkpoint"
    detail = next(anchor for anchor in digest(path)["anchors"] if anchor["name"] == "audit")["detail"]
    assert (detail["bucket"], detail["key"]) == (BUCKET, key)
    until_then = datetime.datetime.fromisoformat(detail["retain_until"])
    assert until_then - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=29)
    for more in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(owner.exceptions.ClientError, match="AccessDenied"):
            owner.delete_object(Bucket=BUCKET, Key=key, VersionId=detail["version"], **more)
        for mode, days in (("COMPLIANCE", -1), ("COMPLIANCE", -29), ("GOVERNANCE", 1), ("GOVERNANCE", -1)):
            asked = {"Mode": mode, "RetainUntilDate": until_then + datetime.timedelta(days=days)}
            with pytest.raises(owner.exceptions.ClientError, match="AccessDenied"):
                owner.put_object_retention(Bucket=BUCKET, Key=key, VersionId=detail["version"], Retention=asked, **more)
    with pytest.raises(owner.exceptions.ClientError, match="BucketNotEmpty"):
        owner.delete_bucket(Bucket=BUCKET)
    owner.put_object(Bucket=BUCKET, Key=key, Body=b"another")  # a new version, which hides nothing
    owner.delete_object(Bucket=BUCKET, Key=key)  # a marker, which hides nothing from who asks for versions
    there = owner.get_object(Bucket=BUCKET, Key=key, VersionId=detail["version"])["Body"].read()
    assert there == (path / "checkpoint").read_bytes()
    overwritten = owner.list_object_versions(Bucket=BUCKET, Prefix=key)["Versions"]
    for each in overwritten:
        if each["VersionId"] != detail["version"]:  # not locked: what somebody else wrote
            owner.delete_object(Bucket=BUCKET, Key=key, VersionId=each["VersionId"])


def _openssl_says_the_same(authority: Authority, path: Path) -> None:
    command = ["openssl", "ts", "-verify", "-data", path / "checkpoint", "-in", path / "tsa.tsr"]
    done = subprocess.run([*command, "-CAfile", authority.roots], check=True, capture_output=True, text=True)
    assert "Verification: OK" in done.stdout + done.stderr


def _the_log_has_the_hash(daemon: Daemon, path: Path) -> None:
    """As anchor/1, which calls for no further digest. SEMANTICS 11.4"""
    (stamp,) = (anchor for anchor in digest(path)["anchors"] if anchor["name"] == "tsa")
    assert stamp["hash"] == hashlib.sha256((path / "tsa.tsr").read_bytes()).hexdigest()

    def found() -> list[dict[str, object]]:
        stream = (daemon.path / "events/from/0.ndjson").open("rb")
        with stream:
            entries = [json.loads(stream.readline())["data"] for _ in range(status(daemon.path)["entries"])]
        return [entry for entry in entries if entry["t"] == "anchor/1" and entry["size"] == int(path.name)]

    until(lambda: bool(found()))
    (entry,) = found()
    said = ("kind", "rfc3161"), ("name", "tsa"), ("root", digest(path)["root"]), ("hash", stamp["hash"])
    assert [(name, entry[name]) for name, _ in said] == list(said)
    time.sleep(2.5)  # two intervals
    assert latest(daemon) == path
    assert place_is_whole(daemon)


def place_is_whole(daemon: Daemon) -> bool:
    return all(anchor["unanchored_entries"] == 0 for anchor in status(daemon.path)["anchors"])


def _no_secret_is_shown(daemon: Daemon) -> None:
    shown = (daemon.path / ".ledgerfs/status.json").read_text() + (latest(daemon) / "digest.json").read_text()
    for secret in (*CREDENTIALS.values(), "not-for-status"):
        assert secret not in shown + daemon.log.read_text()


def _a_stamp_that_does_not_hold(store: Path, kept: Path, root: Path, tmp_path: Path) -> None:
    """Of another authority; of another checkpoint; with a bit flipped."""
    other = Authority(tmp_path / "other", "Another Authority")
    verify = ["verify", "--store", store, "--trusted-root", root, "--anchor", kept, "--tsa-cert"]
    done = ledgerfs(*verify, other.roots)
    assert (done.returncode, "does not verify" in done.stderr) == (4, True)
    data, good = (kept / "checkpoint").read_bytes(), (kept / "tsa.tsr").read_bytes()
    roots = rfc3161.load_roots(tmp_path / "authority/ca.pem")
    assert rfc3161.verify(good, data, roots).year >= 2026
    for wrong, text in ((good, data + b"x"), (good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], data), (b"", data)):
        with pytest.raises(Unreachable):
            rfc3161.verify(wrong, text, roots)
    with pytest.raises(Unreachable, match="Nonce"):
        rfc3161.verify(good, data, roots, nonce=1)


def _the_stand_alone_verifier(daemon: Daemon, forged: Path, kept: Path, root: Path) -> None:
    """It takes digest directories as they are."""
    (key,) = (key["vkey"] for key in json.loads(root.read_text())["keys"])
    for store, code in ((daemon.store, 0), (forged, 1)):
        command = [REPOSITORY / "tools/ledgerfs_verify.py", "store", store, "--key", key, "--anchor", kept]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.slow
def test_one_that_hangs_or_fails_delays_nothing(place: Place) -> None:
    """Neither the other anchors nor commits; it is tried again, and health says what is wrong. SEMANTICS 11.5"""
    asked = place.authority.asked
    place.authority.pause.clear()
    place.commit(lines(ACCOUNTS))
    until(lambda: place.authority.asked > asked)
    place.commit(lines([pay()]))
    (standing,) = (each for each in status(place.daemon.path)["anchors"] if each["name"] == "tsa")
    assert standing["failure"] is None, "the commit did not wait until the authority was given up"
    until(lambda: "no answer within 3 s" in health(place.daemon))
    until(
        lambda: [each["name"] for each in status(place.daemon.path)["anchors"] if each["unanchored_entries"]] == ["tsa"]
    )
    assert gauges(place.daemon)['ledgerfs_anchor_unanchored_seconds{anchor="tsa"}'] > 5
    assert gauges(place.daemon)["ledgerfs_unanchored_seconds"] == 0
    place.authority.pause.set()
    place.authority.status = 503
    until(lambda: "answers 503" in str(status(place.daemon.path)["anchors"][2]["failure"]))
    place.authority.status = 200
    until(lambda: health(place.daemon) == "ok\n")
    until(lambda: place.outcomes(latest(place.daemon))["tsa"] == "anchored")
    digests = [each for each in (place.daemon.path / "digests").iterdir() if each.name != "latest"]
    tries = [
        each["retries"]
        for path in digests
        for each in digest(path)["anchors"]
        if each.get("name") == "tsa" and "retries" in each
    ]
    assert max(tries) >= 1
    assert "Traceback" not in place.daemon.log.read_text()


@pytest.mark.slow
def test_a_bucket_that_holds_another_history_or_no_lock(place: Place, tmp_path: Path) -> None:
    """The one is said until somebody looks; the other counts for nothing."""
    from ledgerfsd.config import S3Anchor
    from ledgerfsd.service.anchors.kinds import AnchorError, Head
    from ledgerfsd.service.anchors.s3 import Bucket

    head = Head(7, bytes(32), note.sign(Checkpoint(LEDGER, 7, bytes(32)).body(), [note.generate(LEDGER)]))
    settings = S3Anchor(
        name="x", bucket=BUCKET, prefix="direct/", endpoint_url=place.s3, region=REGION, retention_days=1
    )
    day = datetime.timedelta(days=1)
    first = Bucket(settings).put(head, day)
    assert Bucket(settings).put(head, day) == first, "it is found, not put again"
    signer = note.generate(LEDGER)
    other = head._replace(root=b"\1" * 32, data=note.sign(Checkpoint(LEDGER, 7, b"\1" * 32).body(), [signer]))
    with pytest.raises(AnchorError, match="two histories"):
        Bucket(settings).put(other, day)
    open_bucket = S3Anchor(name="x", bucket="no-lock", endpoint_url=place.s3, region=REGION, retention_days=1)
    with pytest.raises(Unreachable, match="(?i)lock"):
        Bucket(open_bucket).put(head, day)
    absent = S3Anchor(name="x", bucket="absent", endpoint_url=place.s3, region=REGION, retention_days=1)
    with pytest.raises(Unreachable, match="NoSuchBucket"):
        Bucket(absent).put(head, day)
    # One that somebody put there without a lock is locked; one that is locked for less is locked for longer.
    owner, long = client(place.s3), datetime.timedelta(days=40)
    second = head._replace(size=8, data=note.sign(Checkpoint(LEDGER, 8, bytes(32)).body(), [signer]))
    owner.put_object(Bucket=BUCKET, Key=f"direct/{second.file}", Body=second.data)
    for more in (day, long):
        locked = Bucket(settings).put(second, more)
        said = owner.head_object(Bucket=BUCKET, Key=locked["key"], VersionId=locked["version"])
        assert said["ObjectLockMode"] == "COMPLIANCE"
        left = datetime.datetime.fromisoformat(locked["retain_until"]) - datetime.datetime.now(datetime.UTC)
        assert more - datetime.timedelta(minutes=5) < left <= more
    assert Bucket(settings).put(second, day) == locked, "a longer lock stays as it is"
    # Keys from a file in Amazon's form instead of the environment.
    keys = tmp_path / "credentials"
    keys.write_text("[audit]\naws_access_key_id = FROMFILE\naws_secret_access_key = x\n")
    from_file = Bucket(S3Anchor(name="x", bucket=BUCKET, retention_days=1, credentials_file=str(keys), profile="audit"))
    assert from_file._client._request_signer._credentials.access_key == "FROMFILE"


LOCK_MODE, LOCK_UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"


def in_days(days: int) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


LESS: list[tuple[dict[str, str | None], str]] = [
    ({LOCK_MODE: None, LOCK_UNTIL: None}, "is not locked in COMPLIANCE mode"),
    ({LOCK_MODE: "GOVERNANCE"}, "is not locked in COMPLIANCE mode"),
    ({LOCK_UNTIL: None}, "is not locked in COMPLIANCE mode"),
    ({LOCK_UNTIL: in_days(1)}, "and not until"),
    ({LOCK_UNTIL: in_days(29)}, "and not until"),
    ({LOCK_UNTIL: in_days(-1)}, "is over"),
]


def test_a_server_that_gives_less_than_was_asked(fuse: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock, another mode, too short a time, one that is over: the object is there, and still it is no anchor. SEMANTICS 11.8"""
    from ledgerfsd.config import S3Anchor
    from ledgerfsd.service.anchors.kinds import Head
    from ledgerfsd.service.anchors.s3 import Bucket

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    signer = note.generate(LEDGER)
    with s3_server(tmp_path / "s3.log") as s3, (proxy := S3Proxy(s3)).serving() as url:
        bucket = Bucket(S3Anchor(name="x", bucket=BUCKET, endpoint_url=url, region=REGION, retention_days=30))
        for size, (changed, why) in enumerate(LESS, 1):
            head = Head(size, bytes(32), note.sign(Checkpoint(LEDGER, size, bytes(32)).body(), [signer]))
            proxy.changed = changed
            for refused in (
                set(),
                {"retention"},
                set(),
            ):  # when it is tried again the object is there: no better for that
                proxy.refused = refused
                with pytest.raises(Unreachable, match="501" if refused else why):
                    bucket.put(head, datetime.timedelta(days=30))
            proxy.changed, proxy.refused = {}, set()
            assert bucket.put(head, datetime.timedelta(days=30))["key"] == head.file
        assert len(list(bucket.versions())) == len(LESS), "nothing was put twice"
        _a_daemon_does_not_count_it(proxy, url, tmp_path)


def _a_daemon_does_not_count_it(proxy: S3Proxy, url: str, tmp_path: Path) -> None:
    settings = tmp_path / "ledger.toml"
    table = f'kind = "s3"\nname = "audit"\nbucket = "{BUCKET}"\nprefix = "d/"\nendpoint_url = "{url}"\nregion = "{REGION}"\n'
    head = "anchor_seconds = 1\nanchor_limit_seconds = 2\n\n[[anchors]]\n"
    settings.write_text(f"{head}{table}retention_days = 30\ntimeout_seconds = 10\n")
    proxy.changed = {LOCK_UNTIL: in_days(29)}
    store = create(tmp_path / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root
    daemon = Daemon(store, tmp_path / "mount", ["--config", str(settings)]).start()
    try:
        until(lambda: (said := health(daemon)) and "newest anchor is of 0 entries" in said and "and not until" in said)
        until(lambda: digest(latest(daemon))["anchors"][0]["outcome"] == "failed")
        assert gauges(daemon)["ledgerfs_unanchored_seconds"] > 2
        proxy.changed = {}
        until(lambda: health(daemon) == "ok\n")
        until(lambda: digest(latest(daemon))["anchors"][0]["outcome"] == "anchored")
        assert "Traceback" not in daemon.log.read_text()
    finally:
        daemon.kill()
