"""The daemon's settings: a TOML file, and the command line over it.

Start at ``load``. A key that is not known is an error and names the nearest one that is: a setting that is silently
ignored is worse than none.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from ledgerfsd import limits
from ledgerfsd.errors import LedgerError

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]
SEGMENT_BYTES_MAX: Final = 2**40  # far above anything useful; keeps the arithmetic on offsets away from 2**63


class ConfigError(LedgerError):
    """A setting is unknown, missing or wrong."""

    exit_code = 2


class _Anchor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all tables of ``[[anchors]]`` have."""

    name: str  # names the evidence: digests/<size>/<name>.tsr
    seconds: int = 0  # at most so often; 0: every digest
    limit_seconds: int = 0  # 0: that of all, anchor_limit_seconds
    timeout_seconds: int = 30  # an attempt takes no longer


class FolderAnchor(_Anchor, frozen=True, kw_only=True, tag="folder"):
    """A folder that somebody else commands, or a WORM device."""

    path: str


class S3Anchor(_Anchor, frozen=True, kw_only=True, tag="s3"):
    """A bucket with object lock. Its keys come from the environment or ``credentials_file``, never from here."""

    bucket: str
    retention_days: int  # nobody can delete a checkpoint before
    prefix: str = ""
    endpoint_url: str = ""  # empty: Amazon's
    region: str = ""
    credentials_file: str = ""  # of the form of ~/.aws/credentials
    profile: str = ""  # a section of it
    ca_file: str = ""  # certificates to believe, for servers with one of their own


class TimestampAnchor(_Anchor, frozen=True, kw_only=True, tag="rfc3161"):
    """A time stamp authority."""

    url: str
    tsa_cert: str  # file with the root certificates (PEM) that its tokens must lead to


class WitnessAnchor(_Anchor, frozen=True, kw_only=True, tag="witness"):
    """A C2SP witness."""

    url: str
    vkey: str


AnyAnchor = FolderAnchor | S3Anchor | TimestampAnchor | WitnessAnchor
ANCHOR_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Field names are the keys of the TOML file."""

    store: str
    mountpoint: str
    keys: str = ""  # directory of the signing keys; empty: keys/ in the store
    signer: str = ""  # socket of a signer that runs by itself (`ledgerfs signer`); empty: the daemon starts one
    last_signed: str = (
        ""  # directory, apart from the store, of what was signed last; empty: the usual place of the user
    )
    anchors: tuple[str | AnyAnchor, ...] = ()  # where digests are anchored; a text is a folder
    anchor_seconds: int = 10  # how often a digest is issued, when the log has grown
    anchor_limit_seconds: int = 60  # an entry that no anchor speaks of after so long makes ``health`` complain
    socket: str = ""  # path of a Unix socket for intents without files; empty: none
    allow_other: bool = False  # other users may enter the mount (needs user_allow_other in /etc/fuse.conf unless root)
    segment_bytes: int = limits.SEGMENT_BYTES  # a segment is closed at the first bundle boundary at or after this size
    log_level: LogLevel = "info"
    log_format: LogFormat = "console"


KEYS: Final = tuple(field.name for field in msgspec.structs.fields(Config))


def load(path: Path | None, overrides: Mapping[str, Any]) -> Config:
    """The settings of the file at ``path`` (if any) with ``overrides`` (None: not given) laid over them.

    Raises ConfigError: unreadable file, not TOML, unknown key, wrong type or value, or a missing setting.
    """
    where = str(path) if path else "the command line"
    values = _read(path) if path else {}
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{where}: unknown setting {key!r}", hint=_nearest(key))
    values |= {key: value for key, value in overrides.items() if value is not None}
    for key, option in (("store", "--store"), ("mountpoint", "--mount")):
        if key not in values:
            raise ConfigError(f"the setting {key!r} is missing", hint=f"give {option}, or set it in a --config file")
    try:
        config = msgspec.convert(values, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None
    return _checked(config, where)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key.lower().replace("-", "_"), KEYS, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "known are: " + ", ".join(KEYS)


def _explain(error: msgspec.ValidationError) -> str:
    # msgspec says "Expected `bool`, got `str` - at `$.allow_other`"; the path is what people look for first.
    message, _, path = str(error).partition(" - at `$.")
    return f"setting {path.rstrip('`')!r}: {message}" if path else message


def _checked(config: Config, where: str) -> Config:
    if not limits.SEGMENT_BYTES_MIN <= config.segment_bytes <= SEGMENT_BYTES_MAX:
        raise ConfigError(
            f"{where}: setting 'segment_bytes': {config.segment_bytes} is not between "
            f"{limits.SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}"
        )
    if min(config.anchor_seconds, config.anchor_limit_seconds) < 1:
        raise ConfigError(f"{where}: settings 'anchor_seconds' and 'anchor_limit_seconds' are at least 1")
    _check_anchors(config, where)
    if config.socket and not Path(config.socket).is_absolute():
        raise ConfigError(f"{where}: setting 'socket': {config.socket!r} is not an absolute path")
    if config.signer and not config.keys:
        raise ConfigError(
            f"{where}: setting 'signer' needs 'keys'", hint="the directory of its keys, for the public ones in it"
        )
    for key in ("store", "mountpoint"):
        if not getattr(config, key):
            raise ConfigError(f"{where}: setting {key!r} is empty")
    return config


def anchor_tables(config: Config) -> list[AnyAnchor]:
    """The anchors, each as a table: a text is a folder, named by its path."""
    return [
        FolderAnchor(name=_name_of(anchor), path=anchor) if isinstance(anchor, str) else anchor
        for anchor in config.anchors
    ]


def _name_of(folder: str) -> str:
    return re.sub("[^a-z0-9._-]+", "-", folder.lower()).strip("-._")[-63:].lstrip("-._") or "folder"


def _check_anchors(config: Config, where: str) -> None:
    names: set[str] = set()
    for anchor in anchor_tables(config):
        what = f"{where}: setting 'anchors': "
        if not ANCHOR_NAME.fullmatch(anchor.name):
            raise ConfigError(f"{what}{anchor.name!r} is no name", hint="use a-z, 0-9, '.', '_' and '-', at most 63")
        if anchor.name in names:
            raise ConfigError(f"{what}two are named {anchor.name!r}", hint="write tables with a name each")
        names.add(anchor.name)
        what += f"{anchor.name}: "
        if min(anchor.seconds, anchor.limit_seconds) < 0 or anchor.timeout_seconds < 1:
            raise ConfigError(f"{what}'timeout_seconds' is at least 1, the others at least 0")
        if isinstance(anchor, S3Anchor) and anchor.retention_days < 1:
            raise ConfigError(f"{what}'retention_days' is at least 1")
        for name in ("path", "credentials_file", "ca_file", "tsa_cert"):
            value = getattr(anchor, name, "")
            if hasattr(anchor, name) and (value or name in ("path", "tsa_cert")) and not Path(value).is_absolute():
                raise ConfigError(f"{what}{value!r} is not an absolute path")
        for name in ("url", "endpoint_url"):
            _check_url(getattr(anchor, name, ""), what, required=name == "url" and hasattr(anchor, name))


def _check_url(url: str, what: str, *, required: bool) -> None:
    if not url and not required:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{what}{url!r} is no URL that begins with http:// or https://")
    if parts.username or parts.password:
        # status.json and digests show it to every reader.
        raise ConfigError(f"{what}the URL has a password in it", hint="secrets do not belong into this file")
