"""Builds ``ledgerfsd.vfs._requests``, which sees requests before pyfuse3 does (start in ``csrc/requests.c``).

Run as ``python -m ledgerfsd.vfs.build`` to build in place.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent


def builder() -> FFI:
    """The cffi builder that setup.py names."""
    ffi = FFI()
    ffi.cdef(
        """
        int lfs_requests_bind(const char *path);
        void lfs_request(uint64_t out[3]);
        void lfs_requests_divert(uintptr_t descriptor, uintptr_t receive, uintptr_t context);
        extern "Python" void lfs_interrupted(uint64_t request);
        extern "Python" void lfs_handed(void);
        """
    )
    ffi.set_source(
        "ledgerfsd.vfs._requests",
        (HERE / "csrc" / "requests.c").read_text(encoding="utf-8"),
        libraries=["dl"],
        extra_compile_args=["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-D_GNU_SOURCE"],
        py_limited_api=True,
    )
    return ffi


if __name__ == "__main__":
    builder().compile(tmpdir=str(HERE.parent.parent), verbose=False)
