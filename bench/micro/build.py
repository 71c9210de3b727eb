"""Builds ``build/micro/_stages``: stages.c with the very objects of the C core, so that the product has nothing of benchmarks in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from cffi import FFI

from bench.measure import REPOSITORY
from ledgerfsd.core.build import PUBLIC, SOURCES
from ledgerfsd.errors import LedgerError

HERE: Final = Path(__file__).parent
PLACE: Final = REPOSITORY / "build" / "micro"
NAME: Final = "_stages"


def module() -> ModuleType:
    """The compiled module, built if it is not newer than what it is made of. Raises LedgerError when the core is not built."""
    sources = sorted(SOURCES.glob("*.c"))
    objects = [path.with_suffix(".o") for path in sources]
    for source, made in zip(sources, objects, strict=True):
        if not made.exists():
            raise LedgerError(f"{made} is missing: the core is not built here ({source.name})", hint="run `make core`")
    parts = [*objects, *sorted(SOURCES.glob("*.h")), HERE / "stages.c", HERE / "stages.h", Path(__file__)]
    place = PLACE / f"{NAME}.abi3.so"
    if not place.exists() or place.stat().st_mtime_ns < max(path.stat().st_mtime_ns for path in parts):
        _build(objects)
    spec = importlib.util.spec_from_file_location(NAME, place)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = found
    spec.loader.exec_module(found)
    return found


def _build(objects: list[Path]) -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    ffi = FFI()
    ffi.cdef("\n".join(PUBLIC.findall((HERE / "stages.h").read_text(encoding="utf-8"))))
    ffi.set_source(
        NAME,
        '#include "stages.h"',
        sources=[str(HERE / "stages.c")],
        include_dirs=[str(HERE), str(SOURCES)],
        extra_objects=[str(path) for path in objects],
        libraries=["crypto"],
        extra_compile_args=["-O3", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-D_GNU_SOURCE"],
        extra_link_args=["-pthread"],
        py_limited_api=True,
    )
    ffi.compile(tmpdir=str(PLACE), verbose=False)
