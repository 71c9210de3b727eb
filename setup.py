"""Only what pyproject.toml cannot say: the C core. (The same line in setup.cfg is ignored and gives a wheel without it.)"""

from setuptools import setup

setup(cffi_modules=["ledgerfsd/core/build.py:builder"])
