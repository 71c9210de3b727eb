"""From the settings to the anchors. A kind's libraries are imported only when an anchor of that kind is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledgerfsd.config import AnyAnchor, FolderAnchor, S3Anchor, TimestampAnchor
from ledgerfsd.service.anchors.folder import Folder

if TYPE_CHECKING:
    from ledgerfsd.core.engine import Engine
    from ledgerfsd.service.anchors.kinds import Anchor


def make(settings: AnyAnchor, engine: Engine) -> Anchor:
    """The anchor of one table of ``[[anchors]]``. Raises LedgerError when it cannot be as the table says."""
    if isinstance(settings, FolderAnchor):
        return Folder(settings)
    if isinstance(settings, S3Anchor):
        from ledgerfsd.service.anchors.s3 import ObjectLock

        return ObjectLock(settings)
    if isinstance(settings, TimestampAnchor):
        from ledgerfsd.service.anchors.rfc3161 import Timestamp

        return Timestamp(settings)
    from ledgerfsd.service.anchors.witness import Cosigner

    return Cosigner(settings, engine)
