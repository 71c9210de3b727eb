"""Builds ``build/micro/_stages``: stages.c and the sources of the C core, compiled as the core is. The product has nothing of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from cffi import FFI

from bench.measure import REPOSITORY
from ledgerfsd.core.build import PUBLIC, SOURCES, builder, include_dirs
from ledgerfsd.errors import LedgerError

HERE: Final = Path(__file__).parent
PLACE: Final = REPOSITORY / "build" / "micro"
NAME: Final = "_stages"


def module() -> ModuleType:
    """The compiled module, built if it is not newer than what it is made of (half a minute). Raises LedgerError."""
    place = PLACE / f"{NAME}.abi3.so"
    own = [HERE / "stages.c", HERE / "stages.h", Path(__file__)]
    if _newest([*SOURCES.rglob("*.[ch]"), *own]) > (place.stat().st_mtime_ns if place.exists() else 0):
        _build()
    spec = importlib.util.spec_from_file_location(NAME, place)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = found
    spec.loader.exec_module(found)
    return found


def _build() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    flags: list[str] = builder().distutils_extension(tmpdir=str(PLACE)).extra_compile_args
    flags = [*flags, *(f"-I{place}" for place in include_dirs())]
    headers = _newest(SOURCES.rglob("*.h"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _compile(source, headers, flags), sorted(SOURCES.rglob("*.c"))))
    ffi = FFI()
    ffi.cdef("\n".join(PUBLIC.findall((HERE / "stages.h").read_text(encoding="utf-8"))))
    ffi.set_source(
        NAME,
        '#include "stages.h"',
        sources=[str(HERE / "stages.c")],
        include_dirs=[str(HERE), *include_dirs()],
        extra_objects=objects,
        libraries=["crypto"],
        extra_compile_args=flags,
        extra_link_args=["-pthread"],
        py_limited_api=True,
    )
    ffi.compile(tmpdir=str(PLACE), verbose=False)


def _compile(source: Path, headers: int, flags: list[str]) -> str:
    made = PLACE / f"{source.stem}.o"
    if not made.exists() or made.stat().st_mtime_ns < max(headers, source.stat().st_mtime_ns):
        command = ["cc", "-fPIC", *flags, "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LedgerError(f"{source.name} cannot be compiled: {done.stderr[:2000]}")
    return str(made)


def _newest(paths: Any) -> int:
    return max(path.stat().st_mtime_ns for path in paths)
