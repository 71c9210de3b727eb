"""``verify --anchor WHERE``: what was kept elsewhere, of whichever kind, as checkpoints and what else speaks for them.

Start at ``kept``. The signatures of the checkpoints themselves are the caller's to verify.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from ledgerfsd.config import S3Anchor
from ledgerfsd.errors import DamageError, LedgerError

if TYPE_CHECKING:
    import argparse

    from cryptography.x509 import Certificate

S3: Final = "s3://"


class Kept(NamedTuple):
    """A checkpoint, with the cosignatures that were kept beside it, and what time stamps say of it."""

    name: str
    data: bytes
    stamps: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what to compare with."""
    parser.add_argument(
        "--anchor",
        metavar="WHERE",
        action="append",
        default=[],
        help="a checkpoint kept elsewhere, a folder of them, a digest or digests/ as copied from a mount or a store, or "
        "s3://BUCKET/PREFIX (may be repeated)",
    )
    parser.add_argument(
        "--tsa-cert",
        metavar="FILE",
        type=Path,
        help="roots (PEM) of the time stamp authorities: each .tsr of a digest must verify, and its time is told",
    )
    parser.add_argument("--endpoint-url", metavar="URL", default="", help="the server of s3:// (default: Amazon's)")


def kept(options: argparse.Namespace) -> Iterator[Kept]:
    """Everything that the options name. Raises LedgerError; DamageError for a time stamp that does not hold."""
    roots: list[Certificate] | None = None
    if options.tsa_cert:
        from ledgerfsd.service.anchors.rfc3161 import load_roots

        roots = load_roots(options.tsa_cert)
    for where in options.anchor:
        if where.startswith(S3):
            yield from _bucket(where, options.endpoint_url)
        else:
            yield from _path(Path(where), roots)


def _bucket(where: str, endpoint_url: str) -> Iterator[Kept]:
    from ledgerfsd.service.anchors.s3 import Bucket

    parts = urlsplit(where)
    settings = S3Anchor(
        name="s3", bucket=parts.netloc, prefix=parts.path.lstrip("/"), endpoint_url=endpoint_url, retention_days=1
    )
    found = [Kept(f"{S3}{parts.netloc}/{each.key} {each.version}", each.data) for each in Bucket(settings).versions()]
    if not found:
        raise LedgerError(f"{where} holds no object *.checkpoint")
    yield from found


def _path(path: Path, roots: list[Certificate] | None) -> Iterator[Kept]:
    if not path.is_dir():
        yield Kept(str(path), read(path))
    elif (path / "checkpoint").exists():
        yield _digest(path, roots)
    elif checkpoints := sorted(path.glob("*.checkpoint")):
        yield from (Kept(str(each), read(each)) for each in checkpoints)
    elif named := _named(path):
        yield from (_digest(each, roots) for each in named)
    elif any(path.glob("[0-9]*.ndjson")):
        yield from _stored(path, roots)
    else:
        raise LedgerError(f"{path} holds no file *.checkpoint, and no digests")


def _named(path: Path) -> list[Path]:
    """The directories of digests in a folder, in the order in which they were issued."""
    from ledgerfsd.service.anchors.digests import name_of

    found = ((name_of(each.name), each) for each in path.iterdir() if each.is_dir() and not each.is_symlink())
    return [each for _, each in sorted((name, each) for name, each in found if name)]


def _digest(path: Path, roots: list[Certificate] | None) -> Kept:
    """A digest as a directory."""
    data = read(path / "checkpoint")
    stamps = [_stamp(str(file), read(file), data, roots) for file in sorted(path.glob("*.tsr"))]
    return Kept(str(path), data + b"".join(map(read, sorted(path.glob("*.cosig")))), tuple(stamps))


def _stored(path: Path, roots: list[Certificate] | None) -> Iterator[Kept]:
    """``digests/`` of a store (FORMAT, section 15)."""
    from ledgerfsd.service.anchors.digests import Digests

    digests = Digests(path)
    for digest in digests.all():
        name = f"{path}, digest {digest.name}"
        files = {file: outcome.data for file, outcome in digest.evidence().items()}
        stamps = [
            _stamp(f"{name}, {file}", data, digest.checkpoint, roots)
            for file, data in files.items()
            if file.endswith(".tsr")
        ]
        cosigned = b"".join(data for file, data in files.items() if file.endswith(".cosig"))
        yield Kept(name, digest.checkpoint + cosigned, tuple(stamps))


def _stamp(name: str, token: bytes, data: bytes, roots: list[Certificate] | None) -> str:
    from ledgerfsd.service.anchors import rfc3161
    from ledgerfsd.service.anchors.kinds import Unreachable

    if roots is None:
        return f"{name}: not verified, as no --tsa-cert was given"
    try:
        time = rfc3161.verify(token, data, roots)
    except Unreachable as error:
        raise DamageError(f"{name}: {error}") from None
    return f"{name}: existed at {time.isoformat()}"


def read(path: Path) -> bytes:
    """A file. Raises LedgerError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}") from None
