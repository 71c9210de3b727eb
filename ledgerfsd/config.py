"""The daemon's settings: a TOML file, and the command line over it.

Start at ``load``. A key that is not known is an error and names the nearest one that is: a setting that is silently
ignored is worse than none.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from ledgerfsd import limits
from ledgerfsd.errors import LedgerError

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]
SEGMENT_BYTES_MAX: Final = 2**40  # far above anything useful; keeps the arithmetic on offsets away from 2**63


class ConfigError(LedgerError):
    """A setting is unknown, missing or wrong."""

    exit_code = 2


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Field names are the keys of the TOML file."""

    store: str
    mountpoint: str
    keys: str = ""  # directory of the signing keys; empty: keys/ in the store
    signer: str = ""  # socket of a signer that runs by itself (`ledgerfs signer`); empty: the daemon starts one
    last_signed: str = (
        ""  # directory, apart from the store, of what was signed last; empty: the usual place of the user
    )
    anchors: tuple[str, ...] = ()  # folders that get a copy of every checkpoint; better on other machines
    anchor_seconds: int = 10  # how often
    anchor_limit_seconds: int = 60  # after so long without one, ``health`` complains
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
    for folder in config.anchors:
        if not Path(folder).is_absolute():
            raise ConfigError(f"{where}: setting 'anchors': {folder!r} is not an absolute path")
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
