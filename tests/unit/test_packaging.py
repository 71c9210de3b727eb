"""What a wheel holds, and that what it installs starts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from ledgerfsd import __version__
from tests.conftest import REPOSITORY

LEFT_BEHIND = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "*.so", "*.o", "_core.c", "_requests.c", "lfs_codes.h", "lfs_currencies.h",
    "__pycache__", ".*_cache", ".hypothesis", "ledgerfs", "demo-store", "tests", "bench",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy as clean as a checkout."""
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPOSITORY, place / "source", ignore=LEFT_BEHIND)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",  # with what is installed here: nothing is fetched
        "--wheel-dir",
        place / "dist",
        place / "source",
    ]
    subprocess.run(command, check=True, timeout=600)
    (made,) = (place / "dist").glob("*.whl")
    return made


@pytest.mark.slow
def test_one_wheel_for_every_python_from_311(wheel: Path) -> None:
    assert wheel.name.startswith(f"ledgerfs-{__version__}-cp311-abi3-linux_")


@pytest.mark.slow
def test_wheel_holds_core_and_tables_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"ledgerfsd/core/_core.abi3.so", "ledgerfsd/vfs/_requests.abi3.so"} <= set(names)
    for path in [
        *(path for path in (REPOSITORY / "ledgerfsd" / "data").rglob("*") if path.is_file()),
        REPOSITORY / "ledgerfsd" / "py.typed",
    ]:
        assert str(path.relative_to(REPOSITORY)) in names
    for path in (REPOSITORY / "ledgerfsd").rglob("*.py"):
        assert str(path.relative_to(REPOSITORY)) in names
    assert [name for name in names if name.endswith((".c", ".h", ".o"))] == []
    assert {name.split("/")[0] for name in names} == {"ledgerfsd", f"ledgerfs-{__version__}.dist-info"}


@pytest.mark.slow
@pytest.mark.parametrize("program", ["ledgerfs", "ledgerfsd"])
def test_what_is_installed_starts(wheel: Path, tmp_path: Path, program: str) -> None:
    """From the wheel alone: not from the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        (scripts,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        entry = dict(line.split(" = ") for line in archive.read(scripts).decode().splitlines() if " = " in line)[
            program
        ]
    module, function = entry.split(":")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ledgerfsd.core.engine; from {module} import {function}; "
    script += f"print(ledgerfsd.__file__); sys.argv = [{program!r}, '--version']; {function}()"
    done = subprocess.run([sys.executable, "-c", script], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{tmp_path}/ledgerfsd/__init__.py", f"{program} {__version__}"]


def test_man_pages_are_up_to_date(tmp_path: Path) -> None:
    """`make docs` writes them from --help."""
    subprocess.run([sys.executable, REPOSITORY / "tools" / "make-man", tmp_path], check=True)
    for name in ("ledgerfs.1", "ledgerfsd.8"):
        assert (tmp_path / name).read_text() == (REPOSITORY / "docs" / "man" / name).read_text(), "run `make docs`"


def test_dependencies_are_those_that_are_imported() -> None:
    """Each declared dependency is one of the house's, with a lower bound."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert all(">=" in dependency for dependency in project["dependencies"])
    names = {dependency.split(">")[0] for dependency in project["dependencies"]}
    assert names >= {"pyfuse3", "trio", "lmdb", "cffi", "xxhash", "cryptography", "watchdog", "msgspec", "structlog"}
