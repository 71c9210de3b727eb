"""``ledgerfs witness serve`` and its client: real processes, asked as C2SP tlog-witness says, killed at every step."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from ledgerfsd.cli import main as cli
from ledgerfsd.errors import DamageError, LedgerError, StoreError
from ledgerfsd.merkle import note
from ledgerfsd.merkle.checkpoint import Checkpoint
from ledgerfsd.merkle.cosignature import cosign as sign
from ledgerfsd.service.witnessing import Cosigned, WitnessAhead, WitnessRefused, WitnessUnreachable, cosign
from ledgerfsd.witness import server
from ledgerfsd.witness.memory import Memory, origin_hash
from ledgerfsd.witness.server import BODY_BYTES_MAX, CONNECTIONS_MAX
from tests.conftest import LEDGER, REPOSITORY
from tests.witnesses import SECONDS, History, WitnessProcess

SIGNER = note.generate(LEDGER)
VKEY = SIGNER.verifier().encode()
TRUE = History(SIGNER)
FORGED = History(SIGNER, " forged", common=3)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    made = WitnessProcess(tmp_path / "witness", VKEY)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessProcess]:
    """One that serves all tests that bring their own log."""
    made = WitnessProcess(tmp_path_factory.mktemp("serving") / "witness").start()
    yield made
    assert made.stop() == 0
    assert "Traceback" not in made.log


def new_log(serving: WitnessProcess, name: str) -> tuple[History, History]:
    """A log that it trusts, and another history signed by the same key."""
    signer = note.generate(f"ledger.example/{name}")
    serving.memory.trust(signer.verifier())
    return History(signer), History(signer, " forged", common=3)


# ---- the protocol


def test_it_cosigns_what_continues(serving: WitnessProcess) -> None:
    log, _ = new_log(serving, "continues")
    before = int(time.time())
    assert serving.cosigned(serving.add(0, [], log.checkpoint(7)), log.checkpoint(7)) >= before
    serving.cosigned(serving.add(7, log.prove(7, 12), log.checkpoint(12)), log.checkpoint(12))
    serving.cosigned(serving.add(12, [], log.checkpoint(12)), log.checkpoint(12))  # the same again, with a new time
    known = serving.memory.log(log.signer.name)
    assert known is not None
    assert known.last is not None
    assert known.last.size == 12
    answer = serving.ask("GET", f"/{origin_hash(log.signer.name)}/checkpoint")
    assert (answer.status, answer.body) == (200, known.data)
    assert known.data.startswith(log.checkpoint(12))
    assert known.data.count(b"\xe2\x80\x94") == 2


def test_the_statuses_of_the_specification(serving: WitnessProcess) -> None:
    log, forged = new_log(serving, "statuses")
    seven, twelve = log.checkpoint(7), log.checkpoint(12)
    stranger = History(note.generate("ledger.example/unknown"))
    assert serving.add(0, [], stranger.checkpoint(7)).status == 404
    assert serving.add(0, [], History(note.generate(log.signer.name)).checkpoint(7)).status == 403
    spoiled = seven.replace(b"\n7\n", b"\n8\n")
    assert serving.add(0, [], spoiled).status == 403
    assert serving.add(8, [], seven).status == 400
    assert serving.add(0, [bytes(32)], seven).status == 422
    answer = serving.add(3, log.prove(3, 7), seven)
    assert (answer.status, answer.kind, answer.body) == (409, "text/x.tlog.size", b"0\n")
    serving.cosigned(serving.add(0, [], seven), seven)
    answer = serving.add(0, [], twelve)
    assert (answer.status, answer.kind, answer.body) == (409, "text/x.tlog.size", b"7\n")
    assert serving.add(7, log.prove(7, 12)[:-1], twelve).status == 422
    assert serving.add(7, [], twelve).status == 422
    assert serving.add(7, [*log.prove(7, 12), bytes(32)], twelve).status == 422
    assert serving.add(7, forged.prove(7, 12), forged.checkpoint(12)).status == 422
    assert serving.add(7, [], forged.checkpoint(7)).status == 422
    kept = len(serving.memory.refused(log.signer.name))
    assert serving.add(7, [bytes(32)], seven).status == 422
    assert len(serving.memory.refused(log.signer.name)) == kept, "a wrong question about the same tree is no evidence"
    assert serving.add(3, log.prove(3, 5), log.checkpoint(5)).status == 409, "a log never shrinks"
    serving.cosigned(serving.add(7, log.prove(7, 12), twelve), twelve)


def test_an_empty_log(serving: WitnessProcess) -> None:
    log, _ = new_log(serving, "empty")
    wrong = note.sign(Checkpoint(log.signer.name, 0, bytes(32)).body(), [log.signer])
    assert serving.add(0, [], wrong).status == 422
    serving.cosigned(serving.add(0, [], log.checkpoint(0)), log.checkpoint(0))
    serving.cosigned(serving.add(0, [], log.checkpoint(7)), log.checkpoint(7))


def test_what_is_malformed(serving: WitnessProcess) -> None:
    log, _ = new_log(serving, "malformed")
    good = log.checkpoint(7)
    hash_ = b64encode(bytes(32)) + b"\n"
    bad = [
        b"",
        b"\n\n",
        good,
        b"old 00\n\n" + good,
        b"old -1\n\n" + good,
        b"old 0\n" + good,
        b"old 0\r\n\r\n" + good,
        b"old 0 \n\n" + good,
        b"Old 0\n\n" + good,
        b"old 9223372036854775808\n\n" + good,
        b"old 0\nx\n\n" + good,
        b"old 0\nAAAA\n\n" + good,
        b"old 0\n" + hash_ * 64 + b"\n" + good,
        b"old 0\n\n" + good[:-1],
        b"old 0\n\n" + good.replace(b"\n7\n", b"\n07\n"),
        b"old 0\n\n" + good.partition(b"\n\n")[0] + b"\n",
        b"old 0\n\n\xff" + good,
        b"old 0\n\n" + good + b"\n",
    ]
    for each in bad:
        assert serving.ask("POST", "/add-checkpoint", each).status == 400, each[:80]
    several = note.sign(good.partition(b"\n\n")[0].decode() + "\n", [note.generate("x.example"), log.signer])
    serving.cosigned(serving.add(0, [], several), several)
    known = serving.memory.log(log.signer.name)
    assert known is not None
    assert b"x.example" not in known.data, "signatures of strangers are not passed on"


def test_other_requests(serving: WitnessProcess) -> None:
    assert serving.ask("GET", "/").status == 404
    assert serving.ask("HEAD", "/add-checkpoint").status == 405
    assert serving.ask("GET", "/add-checkpoint").status == 405
    assert serving.ask("POST", f"/{'0' * 64}/checkpoint").status == 405
    assert serving.ask("GET", f"/{'0' * 64}/checkpoint").status == 404
    for path in ("/../../etc/passwd", f"/{'0' * 63}./checkpoint", "/%2e%2e/witness.key", "/witness.key"):
        assert serving.ask("GET", path).status == 404
    new_log(serving, "later")
    assert serving.ask("GET", f"/{origin_hash('ledger.example/later')}/checkpoint").status == 404
    assert serving.ask("POST", "/add-checkpoint", b"x" * (BODY_BYTES_MAX + 1)).status == 413


def raw(serving: WitnessProcess, data: bytes) -> bytes:
    """What is answered until it closes, or to the first silence."""
    target = urlsplit(serving.url)
    with socket.create_connection((str(target.hostname), target.port), timeout=SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def test_what_is_no_http(serving: WitnessProcess) -> None:
    assert b" 400 " in raw(serving, b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n")[0]
    assert b" 431 " in raw(serving, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000).partition(b"\r\n")[0]
    assert raw(serving, b"") == b""
    assert raw(serving, b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab").startswith(
        b"HTTP/1.1 400"
    )
    two = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2
    assert raw(serving, two).count(b"HTTP/1.1 404") == 2, "a connection is kept"
    waits = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
    assert b"HTTP/1.1 400" in raw(serving, waits)


def test_more_connections_than_there_is_room_for(witness: WitnessProcess) -> None:
    witness.start()
    target = urlsplit(witness.url)
    address = (str(target.hostname), target.port or 0)
    silent = [socket.create_connection(address) for _ in range(CONNECTIONS_MAX)]
    try:
        with socket.create_connection(address, timeout=SECONDS) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for each in silent:
            each.close()
    deadline = time.monotonic() + SECONDS
    while True:  # until it has noticed that they have gone
        try:
            witness.cosigned(witness.add(0, [], TRUE.checkpoint(7)), TRUE.checkpoint(7))
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"], ids=repr
)
def test_who_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)

    async def talk() -> bytes:
        memory = Memory.create(tmp_path / "w", "witness.example/w1")
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, server.Server(memory).connection, [listener])
            async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
                await stream.send_all(sent)
                with trio.fail_after(SECONDS):
                    found = bytes(await stream.receive_some(65536))
            nursery.cancel_scope.cancel()
        return found

    assert trio.run(talk) == b""


def test_of_submissions_at_once_one_history_wins(serving: WitnessProcess) -> None:
    """Many forks of one size, and many sizes of one log: what was cosigned is one history that only grows."""
    signer = note.generate("ledger.example/race")
    serving.memory.trust(signer.verifier())
    forks = [History(signer, f" {number}") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda fork: serving.add(0, [], fork.checkpoint(7)), forks))
    assert Counter(each.status for each in answers) == {200: 1, 409: 15}
    (winner,) = (fork for fork, each in zip(forks, answers, strict=True) if each.status == 200)
    with ThreadPoolExecutor(16) as pool:
        sizes = list(range(8, 40))
        later = list(pool.map(lambda size: serving.add(7, winner.prove(7, size), winner.checkpoint(size)), sizes))
    assert Counter(each.status for each in later) == {200: 1, 409: 31}
    (size,) = (size for size, each in zip(sizes, later, strict=True) if each.status == 200)
    assert {each.body for each in later if each.status == 409} == {b"%d\n" % size}


# ---- what it must never forget


def test_a_refused_history_is_kept_and_seen(witness: WitnessProcess) -> None:
    witness.start()
    witness.cosigned(witness.add(0, [], TRUE.checkpoint(7)), TRUE.checkpoint(7))
    for _ in range(2):
        assert witness.add(7, FORGED.prove(7, 9), FORGED.checkpoint(9)).status == 422
    assert witness.add(7, [], FORGED.checkpoint(7)).status == 422
    kept = witness.memory.refused(LEDGER)
    assert [path.read_bytes() for path in kept] == [FORGED.checkpoint(7), FORGED.checkpoint(9)]
    done = ledgerfs("list", "--dir", witness.directory)
    assert (done.returncode, str(kept[0]) in done.stdout) == (1, True)
    assert "REFUSED" in witness.log
    found = json.loads(ledgerfs("list", "--dir", witness.directory, "--json").stdout)
    assert found["logs"][0]["cosigned"]["size"] == 7
    assert len(found["logs"][0]["refused"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["fsync:signal=KILL:when=1", "rename:signal=KILL:when=1", "fsync:signal=KILL:when=2"], ids=str
)
def test_killed_at_every_step_it_cosigns_one_history(witness: WitnessProcess, fault: str) -> None:
    """Before the file is synced, before it is renamed, before the name is synced: no cosignature has got out."""
    witness.start()
    witness.cosigned(witness.add(0, [], TRUE.checkpoint(3)), TRUE.checkpoint(3))
    witness.stop()
    witness.start("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,rename", "-e", f"inject={fault}")
    with pytest.raises((OSError, http.client.HTTPException)):
        witness.add(3, TRUE.prove(3, 7), TRUE.checkpoint(7))
    witness.wait()
    witness.start()
    assert not list(witness.directory.glob("logs/*/*.new"))
    known = witness.memory.log(LEDGER)
    assert known is not None
    assert known.last is not None
    assert known.last.size == (7 if "when=2" in fault else 3)
    if known.last.size == 7:
        assert witness.add(7, FORGED.prove(7, 9), FORGED.checkpoint(9)).status == 422
    answer = trio.run(partial(cosign, witness.url, witness.witness, TRUE.checkpoint(9), TRUE.prove))
    assert answer.size == 9
    assert witness.add(9, [], FORGED.checkpoint(9)).status == 422


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["fsync:error=EIO:when=1", "rename:error=EIO:when=1", "fsync:error=EIO:when=2"])
def test_a_disk_in_doubt_ends_all_cosigning(witness: WitnessProcess, fault: str) -> None:
    witness.start("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,rename", "-e", f"inject={fault}")
    assert witness.add(0, [], TRUE.checkpoint(7)).status == 503
    answer = witness.add(0, [], TRUE.checkpoint(7))
    assert (answer.status, b"restart the witness" in answer.body) == (503, True)
    with pytest.raises(WitnessUnreachable, match="503"):
        trio.run(partial(cosign, witness.url, witness.witness, TRUE.checkpoint(7), TRUE.prove))
    witness.kill()


def test_one_process_serves_a_memory(witness: WitnessProcess) -> None:
    witness.start()
    done = ledgerfs("serve", "--dir", witness.directory, "--listen", "127.0.0.1:0")
    assert (done.returncode, "another process serves" in done.stderr) == (3, True)
    port = urlsplit(witness.url).port
    other = Memory.create(witness.directory.with_name("other"), "witness.example/w2")
    done = ledgerfs("serve", "--dir", other.directory, "--listen", f"127.0.0.1:{port}")
    assert (done.returncode, "cannot listen" in done.stderr) == (1, True)


def test_a_spoiled_memory_is_not_served(witness: WitnessProcess) -> None:
    witness.start()
    witness.cosigned(witness.add(0, [], TRUE.checkpoint(7)), TRUE.checkpoint(7))
    assert witness.stop() == 0
    path = witness.directory / "logs" / origin_hash(LEDGER) / "checkpoint"
    good = path.read_bytes()
    for bad in (
        b"",
        good[:-1],
        TRUE.checkpoint(7),
        good.replace(b"\n7\n", b"\n6\n"),
        FORGED.checkpoint(7) + good.splitlines(True)[-1],
    ):
        path.write_bytes(bad)
        with pytest.raises(DamageError, match="checkpoint"), witness.memory.held():
            pass
    path.write_bytes(good)
    with witness.memory.held():
        pass


# ---- the client


def ask(witness: WitnessProcess, log: History, size: int, *, old_size: int = 0) -> Cosigned:
    return trio.run(partial(cosign, witness.url, witness.witness, log.checkpoint(size), log.prove, old_size=old_size))


def test_the_client_finds_the_size_by_itself(serving: WitnessProcess) -> None:
    log, forged = new_log(serving, "client")
    for size, old in ((3, 0), (7, 0), (7, 7), (9, 3), (9, 12), (20, 9)):
        found = ask(serving, log, size, old_size=old)
        assert found.size == size
        assert abs(found.time - time.time()) < 60
        assert log.checkpoint(size) + found.lines == serving_checkpoint(serving, log)
    with pytest.raises(WitnessAhead) as ahead:
        ask(serving, log, 12)
    assert ahead.value.size == 20
    with pytest.raises(WitnessRefused, match="two histories") as refused:
        ask(serving, forged, 25)
    assert refused.value.status == 422
    with pytest.raises(WitnessRefused, match="does not know the log"):
        ask(serving, History(note.generate("ledger.example/strange")), 7)
    with pytest.raises(WitnessRefused, match="trusts no key"):
        ask(serving, History(note.generate(log.signer.name)), 25)


def serving_checkpoint(serving: WitnessProcess, log: History) -> bytes:
    return serving.ask("GET", f"/{origin_hash(log.signer.name)}/checkpoint").body


def answering(answer: bytes) -> tuple[str, threading.Thread]:
    """The URL of a server that gives this answer to whoever asks first, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                while b"\xe2\x80\x94" not in connection.recv(65536):
                    pass
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/prefix/", thread


def answer_of(status: int, body: bytes, kind: str = "text/plain") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_answers_that_are_none(serving: WitnessProcess, tmp_path: Path) -> None:
    other = Memory.create(tmp_path / "other", "witness.example/w1").key()
    body = TRUE.checkpoint(7).decode().rpartition("\n\n")[0] + "\n"
    wrong = serving.memory.key()
    for answer in (
        b"",
        b"nonsense\r\n\r\n",
        answer_of(200, b""),
        answer_of(200, b"hello\n"),
        answer_of(200, b"x" * 100_000),
        answer_of(200, b"\n\n" + sign(body, 1, wrong).encode()),
        answer_of(200, sign(body, 1, other).encode()),
        answer_of(200, sign(body.replace("\n7\n", "\n8\n"), 1, wrong).encode()),
        answer_of(200, sign(body, 1, wrong).encode())[:-20],
        answer_of(409, b"0\n"),
        answer_of(409, b"-1\n", "text/x.tlog.size"),
        answer_of(500, b"no"),
        answer_of(429, b"later"),
    ):
        url, thread = answering(answer)
        with pytest.raises(WitnessUnreachable):
            trio.run(partial(cosign, url, serving.witness, TRUE.checkpoint(7), TRUE.prove))
        thread.join()
    url, thread = answering(answer_of(200, sign(body, 5, other).encode() + sign(body, 1, wrong).encode()))
    found = trio.run(partial(cosign, url, serving.witness, TRUE.checkpoint(7), TRUE.prove))
    assert found == (sign(body, 1, wrong).encode(), 7, 1), "only the line of the key that is known is taken"
    thread.join()


def test_a_witness_that_says_nothing_is_not_waited_for(serving: WitnessProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(WitnessUnreachable, match="did not answer in"):
            trio.run(partial(cosign, url, serving.witness, TRUE.checkpoint(7), TRUE.prove, seconds=0.2))
    with pytest.raises(WitnessUnreachable, match="cannot be asked"):
        trio.run(partial(cosign, url, serving.witness, TRUE.checkpoint(7), TRUE.prove))
    for bad in ("ftp://x", "witness.example", "http://", "http://x/?y"):
        with pytest.raises(LedgerError, match="not the URL of a witness"):
            trio.run(partial(cosign, bad, serving.witness, TRUE.checkpoint(7), TRUE.prove))


def test_tls_is_verified(serving: WitnessProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a witness stands a proxy with a certificate: one that is known is believed, another is not."""
    log, _ = new_log(serving, "tls")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*make.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    target = urlsplit(serving.url)

    async def proxy(ours: trio.SocketStream) -> None:
        secure = trio.SSLStream(ours, context, server_side=True, https_compatible=True)
        try:
            async with ours, await trio.open_tcp_stream(str(target.hostname), target.port or 0) as theirs:
                await theirs.send_all(await secure.receive_some(65536))
                await secure.send_all(await theirs.receive_some(65536))
        except (trio.BrokenResourceError, ssl.SSLError):
            return

    async def talk() -> Cosigned:
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, proxy, [listener])
            url = f"https://localhost:{listener.socket.getsockname()[1]}"
            try:
                return await cosign(url, serving.witness, log.checkpoint(7), log.prove)
            finally:
                nursery.cancel_scope.cancel()
        raise AssertionError

    with pytest.raises(BaseExceptionGroup) as refused:
        trio.run(talk)
    assert "certificate" in str(refused.value.exceptions[0]).lower()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert trio.run(talk).size == 7


# ---- the command line


def ledgerfs(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ledgerfsd.cli.main", "witness", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)


def test_init_trust_and_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "w"

    def run(*arguments: object) -> tuple[int, str]:
        code = cli.main(["witness", *map(str, arguments)])
        return code, "".join(capsys.readouterr())

    code, said = run("init", "--dir", place, "--name", "witness.example/w1")
    assert code == 0, said
    vkey = said.splitlines()[-1]
    assert vkey == Memory(place).key().witness().encode()
    assert (place / "witness.key").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    code, said = run("init", "--dir", place, "--name", "witness.example/w1")
    assert (code, "is not empty" in said) == (3, True)
    assert "cannot be the name" in run("init", "--dir", tmp_path / "x", "--name", "a b")[1]
    assert not (tmp_path / "x").exists()
    assert run("trust", "--dir", place, "--vkey", VKEY)[0] == 0
    assert "already trusted" in run("trust", "--dir", place, "--vkey", VKEY)[1]
    assert "not an Ed25519 key" in run("trust", "--dir", place, "--vkey", vkey)[1]
    second = note.generate(LEDGER).verifier().encode()
    assert json.loads(run("trust", "--dir", place, "--vkey", second, "--json")[1])["new"] is True
    (found,) = json.loads(run("list", "--dir", place, "--json")[1])["logs"]
    assert found == {
        "origin": LEDGER,
        "hash": origin_hash(LEDGER),
        "keys": [VKEY, second],
        "cosigned": None,
        "refused": [],
    }
    assert run("list", "--dir", place)[0] == 0


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in {
        ("list",): "give --dir",
        ("list", "--dir", tmp_path / "no"): "there is no witness in",
        ("serve", "--dir", tmp_path / "no"): "there is no witness in",
        ("trust", "--dir", tmp_path / "no", "--vkey", VKEY): "there is no witness in",
        ("trust", "--dir", tmp_path): "which ledger",
        ("init", "--dir", tmp_path / "no"): "give --name",
        ("serve", "--dir", tmp_path, "--listen", "x"): "is no address",
        ("serve", "--dir", tmp_path, "--listen", "x:99999"): "is no address",
        ("list", "file"): "only cosign does",
        ("cosign",): "takes a FILE",
        ("cosign", tmp_path / "no", "--url", "http://x"): "No such file",
    }.items():
        assert cli.main(["witness", *map(str, arguments)]) in (1, 3), arguments
        assert said in capsys.readouterr().err, arguments
    with pytest.raises(StoreError):
        Memory(tmp_path).key()
