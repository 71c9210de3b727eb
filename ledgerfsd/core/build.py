"""Builds the C core as a cffi API-mode module, ``ledgerfsd.core._core``.

The C declarations that Python sees stand between ``/* cffi-begin */`` and ``/* cffi-end */`` in the headers of
``csrc/``: the headers are the only source. ``lfs_codes.h`` and ``lfs_currencies.h`` are made here from the tables in
``ledgerfsd/data``, so that C and Python cannot disagree on a code or on the decimals of a currency.
Its folders are rooms (docs/ARCHITECTURE.md); a header is included by its name alone, wherever it stands.
Run as ``python -m ledgerfsd.core.build`` to build in place.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "csrc"
DATA = HERE.parent / "data"
PUBLIC = re.compile(r"/\* cffi-begin \*/(.*?)/\* cffi-end \*/", re.DOTALL)


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a tab-separated table of ``ledgerfsd/data``."""
    with open(DATA / name, encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))


def write_if_changed(path: Path, text: str) -> None:
    """Keep the time stamp of a generated header that has not changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate() -> None:
    """Write the two generated headers."""
    codes = [f"    LFS_{row['code'].upper()} = {row['number']}," for row in rows("codes.tsv")]
    names = [f'    {{{row["number"]}, "{row["code"]}"}},' for row in rows("codes.tsv")]
    text = "/* Made by build.py from data/codes.tsv. */\nenum lfs_code {\n" + "\n".join(codes) + "\n};\n"
    text += "static const struct { int number; const char *name; } LFS_CODE_NAMES[] __attribute__((unused)) = {\n"
    write_if_changed(SOURCES / "lfs_codes.h", text + "\n".join(names) + "\n};\n")
    units = [f'    {{"{row["code"]}", {row["decimals"]}}},' for row in rows("currencies.tsv")]
    text = "/* Made by build.py from data/currencies.tsv. */\nstatic const struct { char code[4]; int decimals; }"
    write_if_changed(SOURCES / "lfs_currencies.h", text + " LFS_ISO_4217[] = {\n" + "\n".join(units) + "\n};\n")


def public_headers() -> list[Path]:
    """The headers that declare something for Python."""
    headers = sorted(SOURCES.rglob("lfs_*.h"), key=lambda path: path.name)
    return [path for path in headers if PUBLIC.search(path.read_text(encoding="utf-8"))]


def include_dirs() -> list[str]:
    """``csrc`` and its rooms."""
    return [str(SOURCES), *(str(path) for path in sorted(SOURCES.iterdir()) if path.is_dir())]


def declarations() -> str:
    """Everything that the headers declare for Python."""
    order = sorted(
        public_headers(), key=lambda path: (path.name == "lfs_verify.h", path.name == "lfs_core.h", path.name)
    )
    return "\n".join(part for path in order for part in PUBLIC.findall(path.read_text(encoding="utf-8")))


def builder() -> FFI:
    """The cffi builder that setup.py names."""
    generate()
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "ledgerfsd.core._core",
        "\n".join(f'#include "{path.name}"' for path in public_headers()),
        sources=[str(path.relative_to(HERE.parent.parent)) for path in sorted(SOURCES.rglob("*.c"))],
        include_dirs=include_dirs(),
        libraries=["crypto"],
        extra_compile_args=[
            "-O3",
            "-g",
            "-std=gnu11",
            "-pthread",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-fno-strict-aliasing",
            "-fvisibility=hidden",
            "-D_GNU_SOURCE",
        ],
        extra_link_args=["-pthread"],
        py_limited_api=True,
    )
    return ffi


if __name__ == "__main__":
    builder().compile(tmpdir=str(HERE.parent.parent), verbose=False)
