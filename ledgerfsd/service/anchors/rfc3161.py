"""Time stamps by RFC 3161: an authority outside signs the hash of a checkpoint with the time at which it saw it.

The imprint is the SHA-256 of ``digests/<size>/checkpoint``, so `openssl ts -verify -data checkpoint -in NAME.tsr` says the
same as we do. An answer counts only when its token verifies against the configured roots. Its hash goes into the log as
``anchor/1``: what stands before that entry is older than the next token, what comes after it is younger than this one.
"""

from __future__ import annotations

import datetime
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

import rfc3161_client as tsp
from cryptography import x509

from ledgerfsd.errors import LedgerError
from ledgerfsd.service.anchors import kinds
from ledgerfsd.service.anchors.kinds import Evidence, Head, Threads, Unreachable

if TYPE_CHECKING:
    from ledgerfsd.config import TimestampAnchor
    from ledgerfsd.service.system import AnchorKind

ANSWER_BYTES_MAX: Final = 256 * 1024
ENDING: Final = ".tsr"
SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


class Timestamp:
    """A time stamp authority."""

    kind: ClassVar[AnchorKind] = "rfc3161"
    records: ClassVar[bool] = True

    def __init__(self, settings: TimestampAnchor) -> None:
        """Raises LedgerError: the roots cannot be read."""
        self.name = settings.name
        self._url = settings.url
        self._roots = load_roots(Path(settings.tsa_cert))
        self._seconds = settings.timeout_seconds
        self._threads = Threads()

    @property
    def where(self) -> str:
        """Its address, without what follows a question mark: there may be a secret in it."""
        return urlsplit(self._url)._replace(query="", fragment="").geturl()

    async def put(self, head: Head) -> Evidence:
        """Ask for a token, and verify it."""
        token, time = await self._threads.run(self._stamp, head.data)
        return Evidence(kinds.sha256(token), _detail(token, time), ENDING, token)

    def _stamp(self, data: bytes) -> tuple[bytes, datetime.datetime]:
        request = (
            tsp.TimestampRequestBuilder()
            .data(data)
            .hash_algorithm(tsp.HashAlgorithm.SHA256)
            .nonce(nonce=True)
            .cert_request(cert_request=True)
            .build()
        )
        question = urllib.request.Request(  # noqa: S310  (the settings allow http and https only)
            self._url, request.as_bytes(), {"Content-Type": "application/timestamp-query"}
        )
        try:
            with _OPENER.open(question, timeout=self._seconds) as answer:
                token: bytes = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            error.close()
            raise Unreachable(f"{self.where} answers {error.code} {error.reason}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise Unreachable(f"{self.where}: {getattr(error, 'reason', error)}") from None
        return token, verify(token, data, self._roots, nonce=request.nonce)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An authority answers where it was asked."""

    def redirect_request(self, *_: Any) -> None:
        """No."""


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def load_roots(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises LedgerError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise LedgerError(f"{path} holds no certificates in PEM form: {error}") from None


def verify(token: bytes, data: bytes, roots: list[x509.Certificate], *, nonce: int | None = None) -> datetime.datetime:
    """The time that a response (DER) states for ``data``, its token verified up to a root. Raises Unreachable."""
    if len(token) > ANSWER_BYTES_MAX:
        raise Unreachable(f"a time stamp of more than {ANSWER_BYTES_MAX} bytes")
    try:
        response = tsp.decode_timestamp_response(token)
        if tsp.PKIStatus(response.status) is not tsp.PKIStatus.GRANTED:
            said = "; ".join(response.status_string)
            raise Unreachable(f"the authority grants no time stamp (status {response.status}): {said}")
        if response.tst_info.message_imprint.hash_algorithm != SHA256:
            raise Unreachable("the time stamp is of another hash than SHA-256")
        builder = tsp.VerifierBuilder(roots=list(roots), intermediates=_others(response, roots))
        if nonce is not None:
            builder = builder.nonce(nonce)
        builder.build().verify_message(response, data)
        return response.tst_info.gen_time
    except tsp.VerificationError as error:
        raise Unreachable(f"the time stamp does not verify: {error}") from None
    except Unreachable:
        raise
    except Exception as error:
        # Of what strangers sent: the libraries raise a dozen kinds (InvalidVersion, DuplicateExtension, …) without a common base.
        raise Unreachable(f"not a time stamp: {type(error).__name__}: {error}") from None


def _others(response: tsp.TimeStampResponse, roots: list[x509.Certificate]) -> list[x509.Certificate]:
    """Certificates between the signer's and a root, as the token brings them."""
    return [
        cert for cert in map(x509.load_der_x509_certificate, response.signed_data.certificates) if cert not in roots
    ]


def _detail(token: bytes, time: datetime.datetime) -> dict[str, Any]:
    info = tsp.decode_timestamp_response(token).tst_info
    return {
        "time": time.astimezone(datetime.UTC).isoformat(),
        "serial": str(info.serial_number),
        "policy": info.policy.dotted_string,
        "imprint": info.message_imprint.message.hex(),
    }
