"""Every answer LedgerFS gives has a number, a name and an errno; the table is ``data/codes.tsv``.

The lowest number that applies is the answer (docs/FORMAT.md, section 6.1), so that file, command line and replay agree.
"""

from __future__ import annotations

import csv
import errno
from dataclasses import dataclass
from importlib import resources
from typing import Final


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table of result codes."""

    number: int
    name: str
    errno: int
    http: int
    meaning: str
    what_to_do: str


def _table() -> tuple[str, dict[int, Code]]:
    text = resources.files("ledgerfsd").joinpath("data/codes.tsv").read_text(encoding="utf-8")
    codes: dict[int, Code] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        number = 0 if row["errno"] == "0" else int(getattr(errno, row["errno"]))
        code = Code(int(row["number"]), row["code"], number, int(row["http"]), row["meaning"], row["what_to_do"])
        codes[code.number] = code
    return text, codes


TABLE_TEXT, CODES = _table()
BY_NAME: Final = {code.name: code for code in CODES.values()}


class LedgerError(Exception):
    """A fault the user is told about: what is wrong, where, and what to do. ``exit_code`` is the process's."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(LedgerError):
    """The store cannot be used as it is: missing, in use, of another format."""

    exit_code = 3


class DamageError(LedgerError):
    """Stored bytes are not what was sealed. Names the file and the entry; nothing was changed."""

    exit_code = 4


class Refused(LedgerError):
    """An intent was refused; carries its code."""

    def __init__(self, code: Code, message: str = "") -> None:
        super().__init__(message or f"{code.name}: {code.meaning}", hint=code.what_to_do)
        self.code = code
