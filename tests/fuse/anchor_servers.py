"""Real counterparts of anchors on this machine: a time stamp authority (`openssl ts`) and an S3 server with object lock (ministack).

``S3Proxy`` stands before that server and spoils its answers: what a server does that is asked for a lock and gives none.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import READY_SECONDS

EPHEMERAL_LEAST = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
BUCKET = "audit-bucket"
# What the daemon gets in its environment: never in its settings.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAWRITER", "AWS_SECRET_ACCESS_KEY": "very-secret-indeed"}
REGION = "eu-central-1"

OPENSSL = """\
[ req ]
distinguished_name = name
prompt = no
[ name ]
CN = {name}
[ ca ]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[ stamp ]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ tsa ]
default_tsa = service
[ service ]
dir = .
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """A time stamp authority with a root of its own. ``pause`` holds answers back; ``status`` other than 200 is all it says."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        folder.mkdir()
        self.folder = folder
        self.pause = threading.Event()
        self.pause.set()
        self.status = 200
        self.asked = 0
        (folder / "serial").write_text("01\n")
        (folder / "openssl.cnf").write_text(OPENSSL.format(name=name))
        new = ["req", "-config", "openssl.cnf", "-newkey", "rsa:2048", "-nodes", "-keyout"]
        openssl(folder, *new, "ca.key", "-x509", "-extensions", "ca", "-days", "10", "-out", "ca.pem")
        openssl(folder, *new, "tsa.key", "-subj", f"/CN={name} stamps", "-out", "tsa.csr")
        sign = ["x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7"]
        openssl(folder, *sign, "-days", "10", "-extfile", "openssl.cnf", "-extensions", "stamp", "-out", "tsa.pem")

    @property
    def roots(self) -> Path:
        return self.folder / "ca.pem"

    def reply(self, query: bytes) -> bytes:
        """The response to a query, as `openssl ts` gives it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            (Path(place) / "q").write_bytes(query)
            asked = ["ts", "-reply", "-config", "openssl.cnf", "-queryfile", f"{place}/q", "-out", f"{place}/a"]
            openssl(self.folder, *asked)
            return (Path(place) / "a").read_bytes()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its URL."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                authority.asked += 1
                authority.pause.wait(60)
                answer = authority.reply(query) if authority.status == 200 else b""
                self.send_response(authority.status)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                try:
                    self.wfile.write(answer)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # whoever asked has given up, as one of the tests wants

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}/stamp?key=not-for-status"
            finally:
                authority.pause.set()
                server.shutdown()
                thread.join()


def free_port() -> int:
    """A port of no one. Not one that the kernel gives to connections: it could give it away before the server is there, and a client
    that asks for a server which is not there could be connected to itself."""
    for port in random.SystemRandom().sample(range(10_000, EPHEMERAL_LEAST), 100):
        with suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """The URL of a server that enforces object lock; it has a bucket with it, ``BUCKET``."""
    port = free_port()
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3"}
    program = [Path(sys.executable).with_name("ministack")]
    with log.open("wb") as said:
        server = subprocess.Popen(program, cwd=log.parent, stdout=said, stderr=said, env=os.environ | settings)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port}"
        owner = client(url)
        where = {"LocationConstraint": REGION}
        owner.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True, CreateBucketConfiguration=where)
        owner.create_bucket(Bucket="no-lock", CreateBucketConfiguration=where)
        yield url
    finally:
        server.terminate()
        server.wait(READY_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


class S3Proxy:
    """Passes everything on to an S3 server, and changes headers of answers: name (lower case) → value, None: left out."""

    def __init__(self, url: str) -> None:
        self._there = url.removeprefix("http://")
        self.changed: dict[str, str | None] = {}
        self.refused: set[str] = set()  # queries that are answered 501, such as "retention"

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its URL."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if any(word in self.path.partition("?")[2] for word in proxy.refused):
                    self.send_error(501)
                    return
                connection = http.client.HTTPConnection(proxy._there, timeout=10)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    changed = proxy.changed.get(name.lower(), value)
                    if changed is not None and name.lower() not in (
                        "transfer-encoding",
                        "connection",
                        "content-length",
                    ):
                        self.send_header(name, changed)
                self.send_header("Content-Length", answer.getheader("Content-Length", str(len(data))))
                self.end_headers()
                self.wfile.write(data)
                connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


def client(url: str) -> Any:
    """The owner of the account: whoever can do most."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def status(mount: Path) -> dict[str, Any]:
    """status.json."""
    found: dict[str, Any] = json.loads((mount / ".ledgerfs/status.json").read_text())
    return found
