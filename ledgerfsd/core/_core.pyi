"""The compiled module (cffi, API mode): see ``build.py``. Only the typed faces beside this file use it."""

from typing import Any

ffi: Any
lib: Any
