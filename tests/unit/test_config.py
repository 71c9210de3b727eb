"""config.py: what is accepted, and what the errors say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledgerfsd import limits
from ledgerfsd.config import Config, ConfigError, FolderAnchor, S3Anchor, anchor_tables, load

BOTH = {"store": "/s", "mountpoint": "/m"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ledgerfs.toml"
    path.write_text(text)
    return path


def test_command_line_alone_is_enough() -> None:
    assert load(None, BOTH) == Config(store="/s", mountpoint="/m")


def test_file_gives_every_setting(tmp_path: Path) -> None:
    text = """
        store = "/a"
        mountpoint = "/b"
        allow_other = true
        segment_bytes = 1048576
        log_level = "debug"
        log_format = "json"
    """
    assert load(write(tmp_path, text), {}) == Config(
        store="/a", mountpoint="/b", allow_other=True, segment_bytes=2**20, log_level="debug", log_format="json"
    )


def test_command_line_wins_and_none_means_not_given(tmp_path: Path) -> None:
    path = write(tmp_path, 'store = "/a"\nmountpoint = "/b"\nlog_level = "error"')
    found = load(path, {"store": "/c", "mountpoint": None, "log_level": None})
    assert (found.store, found.mountpoint, found.log_level) == ("/c", "/b", "error")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("mount_point = '/b'", "unknown setting 'mount_point'", "did you mean 'mountpoint'?"),
        ("segment-bytes = 1", "unknown setting 'segment-bytes'", "did you mean 'segment_bytes'?"),
        ("zzzz = 1", "unknown setting 'zzzz'", "known are: store, mountpoint"),
        ("allow_other = 'yes'", "setting 'allow_other': Expected `bool`, got `str`", ""),
        ("log_level = 'loud'", "setting 'log_level': Invalid enum value 'loud'", ""),
        ("store = 3", "setting 'store': Expected `str`, got `int`", ""),
        ("store = ''", "setting 'store' is empty", ""),
        (f"segment_bytes = {limits.SEGMENT_BYTES_MIN - 1}", "is not between", ""),
        (f"segment_bytes = {2**40 + 1}", "is not between", ""),
        ("store = ", "not TOML", ""),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = write(tmp_path, text)
    overrides = {key: value for key, value in BOTH.items() if not text.startswith(key)}
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("size", [limits.SEGMENT_BYTES_MIN, 2**40])
def test_segment_size_at_its_limits(size: int) -> None:
    assert load(None, BOTH | {"segment_bytes": size}).segment_bytes == size


@pytest.mark.parametrize("key", ["store", "mountpoint"])
def test_missing_settings_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"the setting '{key}' is missing"):
        load(None, {name: value for name, value in BOTH.items() if name != key})


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", BOTH)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        load(path, BOTH)


def test_anchors_are_folders_or_tables(tmp_path: Path) -> None:
    text = 'anchors = ["/mnt/Auditor 1/main", {kind = "s3", name = "b", bucket = "x", retention_days = 9}]'
    folder, bucket = anchor_tables(load(write(tmp_path, text), BOTH))
    assert folder == FolderAnchor(name="mnt-auditor-1-main", path="/mnt/Auditor 1/main")
    assert isinstance(bucket, S3Anchor)
    assert (bucket.prefix, bucket.timeout_seconds, bucket.seconds) == ("", 30, 0)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ('"mnt/a"', "'mnt/a' is not an absolute path"),
        ('"/mnt/a", "/mnt-a"', "two are named 'mnt-a'"),
        ('{kind = "folder", name = "Ä", path = "/x"}', "'Ä' is no name"),
        ('{kind = "folder", name = "a", path = ""}', "is not an absolute path"),
        ('{kind = "folder", path = "/x"}', "setting 'anchors[0]': Object missing required field `name`"),
        ('{kind = "folder", name = "a", path = "/x", secret = "y"}', "unknown field `secret`"),
        ('{kind = "ftp", name = "a"}', "setting 'anchors[0].kind': Invalid value 'ftp'"),
        ('{kind = "s3", name = "a", bucket = "b", retention_days = 0}', "'retention_days' is at least 1"),
        ('{kind = "rfc3161", name = "a", url = "http://h", tsa_cert = ""}', "is not an absolute path"),
        ('{kind = "rfc3161", name = "a", url = "http://u:p@h", tsa_cert = "/c"}', "the URL has a password in it"),
        ('{kind = "witness", name = "a", url = "file:///x", vkey = "v"}', "no URL that begins with http"),
        ('{kind = "folder", name = "a", path = "/x", timeout_seconds = 0}', "'timeout_seconds' is at least 1"),
    ],
)
def test_mistakes_in_anchors_are_named(tmp_path: Path, anchor: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, f"anchors = [{anchor}]"), BOTH)
    assert message in str(caught.value)
