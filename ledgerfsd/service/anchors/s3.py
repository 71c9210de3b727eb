"""Checkpoints in a bucket with object lock: nobody can delete or overwrite one before its time, not even the account's root.

boto3 is an extra (``pip install ledgerfs[s3]``) and is imported only when such an anchor is configured. Objects are named as
files of an anchor folder are. An object that is there is compared, in all its versions; a new one is put with a retention
in COMPLIANCE mode and asked for again: it counts only when the server says that it is locked so long. One that lay there
without such a lock, or with a shorter one, is locked first.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ledgerfsd.config import S3Anchor
from ledgerfsd.errors import LedgerError
from ledgerfsd.service.anchors import kinds
from ledgerfsd.service.anchors.kinds import SUFFIX, Evidence, Head, Threads, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledgerfsd.service.system import AnchorKind

MODE: Final = "COMPLIANCE"
SLACK: Final = datetime.timedelta(seconds=2)  # servers cut times to seconds
OBJECT_BYTES_MAX: Final = 1_000_000


class Object(NamedTuple):
    """A version of an object."""

    key: str
    version: str
    data: bytes


class Bucket:
    """A bucket, or a part of it."""

    def __init__(self, settings: S3Anchor) -> None:
        """Raises LedgerError: boto3 is not installed, or there is no such file of credentials."""
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._client, self._fault = _client(settings)
        self.where = f"s3://{settings.bucket}/{settings.prefix}"

    def put(self, head: Head, retention: datetime.timedelta) -> dict[str, Any]:
        """Put a checkpoint, or find it; what a reader needs to find it again. Raises Unreachable, AnchorError."""
        key = f"{self._prefix}{head.file}"
        found, until = "", datetime.datetime.now(datetime.UTC) + retention
        for there in self.versions(key):
            kinds.compare(f"s3://{self._bucket}/{there.key} version {there.version}", there.data, head.data)
            found = found or there.version
        asked = not found or self._short(key, found, retention)
        if not found:
            answer = self._call(
                self._client.put_object,
                Bucket=self._bucket,
                Key=key,
                Body=head.data,
                ContentType="text/plain; charset=utf-8",
                ChecksumAlgorithm="SHA256",
                ObjectLockMode=MODE,
                ObjectLockRetainUntilDate=until,
            )
            found = str(answer.get("VersionId", ""))
        elif asked:
            self._call(
                self._client.put_object_retention,
                Bucket=self._bucket,
                Key=key,
                VersionId=found,
                Retention={"Mode": MODE, "RetainUntilDate": until},
            )
        return {
            "bucket": self._bucket,
            "key": key,
            "version": found,
            "retain_until": self._locked(key, found, until if asked else None),
        }

    def _short(self, key: str, version: str, retention: datetime.timedelta) -> bool:
        """Whether the object is locked for less than we would have asked when it was put; by the server's clock."""
        answer = self._call(self._client.head_object, Bucket=self._bucket, Key=key, VersionId=version)
        until = answer.get("ObjectLockRetainUntilDate")
        if answer.get("ObjectLockMode") != MODE or not isinstance(until, datetime.datetime):
            return True
        short: bool = until < answer["LastModified"] + retention - SLACK
        return short

    def _locked(self, key: str, version: str, asked: datetime.datetime | None) -> str:
        """Until when; ``asked``: how long it was asked to be locked just now, None: nothing was asked.

        A server that does not know locks stores the object all the same, and says nothing. Raises Unreachable.
        """
        answer = self._call(self._client.head_object, Bucket=self._bucket, Key=key, VersionId=version)
        until = answer.get("ObjectLockRetainUntilDate")
        if answer.get("ObjectLockMode") != MODE or not isinstance(until, datetime.datetime):
            what = f"s3://{self._bucket}/{key} is not locked in {MODE} mode"
            raise Unreachable(what, hint="make the bucket with object lock enabled")
        if until < datetime.datetime.now(datetime.UTC) - SLACK:
            raise Unreachable(f"the retention of s3://{self._bucket}/{key} is over, {until.isoformat()}")
        if asked is not None and until < asked - SLACK:
            what = f"s3://{self._bucket}/{key} is locked until {until.isoformat()}, and not until {asked.isoformat()}"
            raise Unreachable(what, hint="the server keeps less than was asked of it")
        return until.astimezone(datetime.UTC).isoformat()

    def versions(self, prefix: str = "") -> Iterator[Object]:
        """All versions of all checkpoints: one that was laid over another does not hide it. Raises Unreachable."""
        markers: dict[str, str] = {}
        while True:
            page = self._call(
                self._client.list_object_versions, Bucket=self._bucket, Prefix=prefix or self._prefix, **markers
            )
            for each in page.get("Versions", []):
                if not each["Key"].endswith(SUFFIX):
                    continue
                found = self._call(
                    self._client.get_object, Bucket=self._bucket, Key=each["Key"], VersionId=each["VersionId"]
                )
                yield Object(each["Key"], each["VersionId"], found["Body"].read(OBJECT_BYTES_MAX))
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return method(**arguments)
        except self._fault as error:
            raise Unreachable(f"{self.where}: {error}") from None


class ObjectLock:
    """A bucket that gets a copy of every checkpoint."""

    kind: ClassVar[AnchorKind] = "s3"
    records: ClassVar[bool] = False

    def __init__(self, settings: S3Anchor) -> None:
        """Raises LedgerError, see ``Bucket``."""
        self.name = settings.name
        self._bucket = Bucket(settings)
        self._retention = datetime.timedelta(days=settings.retention_days)
        self._threads = Threads()

    @property
    def where(self) -> str:
        """The bucket and the beginning of the names in it."""
        return self._bucket.where

    async def put(self, head: Head) -> Evidence:
        """Put the checkpoint under a lock."""
        detail = await self._threads.run(self._bucket.put, head, self._retention)
        return Evidence(kinds.sha256(head.data), detail)


def _client(settings: S3Anchor) -> tuple[Any, tuple[type[Exception], ...]]:
    """A client, and what its methods raise. No secret comes from our settings."""
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise LedgerError("anchors of kind s3 need boto3", hint="pip install 'ledgerfs[s3]'") from None
    core = botocore.session.Session(profile=settings.profile or None)
    if settings.credentials_file:
        if not Path(settings.credentials_file).is_file():
            raise LedgerError(f"{settings.credentials_file}: there is no such file of S3 credentials")
        core.set_config_variable("credentials_file", settings.credentials_file)
    seconds = max(1, settings.timeout_seconds // 2)
    config = botocore.config.Config(
        connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}, user_agent_appid="ledgerfs"
    )
    faults = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
    try:
        client = boto3.Session(botocore_session=core).client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            region_name=settings.region or None,
            verify=settings.ca_file or None,
            config=config,
        )
    except faults as error:
        raise LedgerError(f"the anchor {settings.name}: {error}") from None
    return client, faults
