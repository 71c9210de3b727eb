"""Only what pyproject.toml cannot say: what is compiled. (The same line in setup.cfg is ignored and gives a wheel without it.)"""

from setuptools import setup

setup(cffi_modules=["ledgerfsd/core/build.py:builder", "ledgerfsd/vfs/build.py:builder"])
