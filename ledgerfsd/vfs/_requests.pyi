"""The compiled module (cffi, API mode): see ``build.py``. Only ``requests`` uses it."""

from typing import Any

ffi: Any
lib: Any
