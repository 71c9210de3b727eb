"""Published time stamps (RFC 3161): ours are taken when openssl takes them, and only with SHA-256."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ledgerfsd.errors import LedgerError
from ledgerfsd.service.anchors import rfc3161
from ledgerfsd.service.anchors.kinds import Unreachable

FIXTURES = Path(__file__).parent.parent / "vectors" / "rfc3161-timestamps" / "fixtures"
HELLO = b"hello"
# Of what is published: whether it is a good time stamp of "hello" by SHA-256 at a time when its certificates were valid.
GOOD = {"sigstage/response-sha256.tsr"}
OTHER_HASH = {
    "identrust/issue-104.tsr",
    "sigstage/response-sha384.tsr",
    "sigstage/response-sha512.tsr",
    "test_tsa/other_response.tsr",
    "test_tsa/response-injected-certs.tsr",
    "test_tsa/response.tsr",
}


def published() -> list[Path]:
    found = sorted(FIXTURES.rglob("*.tsr"))
    assert len(found) == 10
    return found


@pytest.mark.parametrize("path", published(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_time_stamps(path: Path) -> None:
    name = f"{path.parent.name}/{path.name}"
    chain, payload = path.parent / "ts_chain.pem", path.parent / "payload"
    if b"BEGIN CERTIFICATE" not in chain.read_bytes():  # one certificate in DER
        with pytest.raises(LedgerError, match="no certificates"):
            rfc3161.load_roots(chain)
        chain = FIXTURES / "sigstage/ts_chain.pem"
    data = payload.read_bytes() if payload.exists() else HELLO
    try:
        time = rfc3161.verify(path.read_bytes(), data, rfc3161.load_roots(chain))
    except Unreachable as error:
        assert name not in GOOD, error
        assert ("another hash" in str(error)) == (name in OTHER_HASH), error
        return
    assert name in GOOD
    assert str(time).startswith("2025-05-09 11:58:55")


def test_openssl_says_the_same_of_the_good_one(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(HELLO)
    (good,) = GOOD
    for file, taken in ((good, True), ("sigstage/response-invalid-signature.tsr", False)):
        command = ["openssl", "ts", "-verify", "-data", tmp_path / "data", "-in", FIXTURES / file, "-CAfile"]
        done = subprocess.run(
            [*command, FIXTURES / "sigstage/ts_chain.pem"], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is taken, done.stderr


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # of a certificate that we have changed
def test_what_is_no_time_stamp_is_refused() -> None:
    """Every cut of a good one, and every byte of it changed: refused, or of what CMS does not sign, and then it says the same time.

    (The certificate is among the roots here too, so the one in the token is not always looked at.)
    """
    (good,) = GOOD
    token, roots = (FIXTURES / good).read_bytes(), rfc3161.load_roots(FIXTURES / "sigstage/ts_chain.pem")
    for length in range(0, len(token), 3):
        with pytest.raises(Unreachable):
            rfc3161.verify(token[:length], HELLO, roots)
    time = rfc3161.verify(token, HELLO, roots)
    for at in range(len(token)):
        try:
            assert rfc3161.verify(token[:at] + bytes([token[at] ^ 1 << at % 8]) + token[at + 1 :], HELLO, roots) == time
        except Unreachable:
            continue
    with pytest.raises(Unreachable):
        rfc3161.verify(token, HELLO + b"!", roots)


def test_roots_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        rfc3161.load_roots(tmp_path / "absent")
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(LedgerError, match="no certificates"):
        rfc3161.load_roots(tmp_path / "x")
