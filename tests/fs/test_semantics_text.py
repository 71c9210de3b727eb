"""Every paragraph of docs/SEMANTICS.md is quoted by a test, and no test quotes one that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import REPOSITORY

PARAGRAPH = re.compile(r"^\*\*(\d+\.\d+)\*\* ", re.MULTILINE)
QUOTE = re.compile(r"SEMANTICS (\d+\.\d+)")


def test_every_paragraph_has_a_test() -> None:
    written = PARAGRAPH.findall((REPOSITORY / "docs/SEMANTICS.md").read_text(encoding="utf-8"))
    assert len(set(written)) == len(written) > 60
    files = [*Path(REPOSITORY, "tests/fs").glob("*.py"), *Path(REPOSITORY, "tests/fuse").glob("*.py")]
    quoted = {number for file in files for number in QUOTE.findall(file.read_text(encoding="utf-8"))}
    assert quoted - set(written) == set(), "quoted, but not written"
    assert sorted(set(written) - quoted) == [], "written, but not tested"
