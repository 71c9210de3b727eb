"""House rules that no linter knows (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FILE_LINES_MAX = 800
# The stand-alone verifier is one file on purpose: an auditor takes it away and reads it alone.
LONGER = {"tools/ledgerfs_verify.py": 900}
FUNCTION_LINES_MAX = 80
GENERATED = {"lfs_codes.h", "lfs_currencies.h", "_core.c", "_requests.c"}
MONEY_ROOMS = (
    "money.py",
    "types.py",
    "core/",
    "journal/",
    "state/",
    "service/query.py",
    "service/render.py",
    "cli/reading.py",
)


def tracked(*endings: str) -> list[Path]:
    """Our own text files, by ending; what is generated or ignored is left out."""
    places = ["ledgerfsd", "tests", "tools", "bench", "docs", "packaging", "examples", ".ci"]
    found = [path for place in places for path in sorted((REPOSITORY / place).rglob("*")) if path.is_file()]
    found += [path for path in sorted(REPOSITORY.iterdir()) if path.is_file()]
    ignored = {".git", "__pycache__", "vectors", "third_party", "results"}
    return [
        path
        for path in found
        if path.name.endswith(endings) and path.name not in GENERATED and not ignored & set(path.parts)
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


CODE = tracked(".py", ".pyi", ".c", ".h")
PYTHON = tracked(".py")


def test_there_is_something_to_check() -> None:
    assert len(PYTHON) > 50
    assert len(CODE) > len(PYTHON) + 10


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_fit_into_a_head(path: Path) -> None:
    assert source(path).count("\n") <= LONGER.get(name_of(path), FILE_LINES_MAX)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_python_functions_fit_onto_a_screen(path: Path) -> None:
    for function in functions(ast.parse(source(path))):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES_MAX, f"{name_of(path)}: {function.name}"


@pytest.mark.parametrize("path", tracked(".c"), ids=name_of)
def test_c_functions_fit_onto_a_screen(path: Path) -> None:
    """A function's body begins with a line that ends in { at the left margin's definition and ends with a lone }."""
    begin = 0
    for number, line in enumerate(source(path).splitlines(), 1):
        if line.endswith("{") and line[:1] not in (" ", "\t", "#", "/", "}"):
            begin = number
        if line.startswith("}") and begin:
            assert number - begin < FUNCTION_LINES_MAX, f"{name_of(path)}, line {begin}"
            begin = 0


# In pieces, so that this file does not hold them itself.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|HA" + r"CK)\b|Not" + "ImplementedError")


@pytest.mark.parametrize(
    "path", tracked(".py", ".pyi", ".c", ".h", ".md", ".toml", ".cfg", ".in", "Makefile"), ids=name_of
)
def test_nothing_is_left_unfinished(path: Path) -> None:
    found = UNFINISHED.search(source(path))
    assert found is None, f"{name_of(path)}: {found}"


@pytest.mark.parametrize("path", [path for path in PYTHON if "tests" in path.parts], ids=name_of)
def test_no_test_is_skipped(path: Path) -> None:
    """What cannot run fails; a test that is skipped proves nothing."""
    assert not re.search(r"pytest\.(mark\.)?" + "skip|import" + "orskip|mark\\.x" + "fail", source(path))


@pytest.mark.parametrize(
    "path",
    [path for path in PYTHON if name_of(path).removeprefix("ledgerfsd/").startswith(MONEY_ROOMS)],
    ids=name_of,
)
def test_no_floats_near_money(path: Path) -> None:
    tree = ast.parse(source(path))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "float"] == []


@pytest.mark.parametrize("path", [path for path in PYTHON if "ledgerfsd" in path.parts], ids=name_of)
def test_modules_say_what_they_are_for(path: Path) -> None:
    tree = ast.parse(source(path))
    assert ast.get_docstring(tree), name_of(path)
    if not name_of(path).startswith("ledgerfsd/core/"):
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                assert ast.get_docstring(node), f"{name_of(path)}: {node.name}"


@pytest.mark.parametrize("path", [path for path in PYTHON if "ledgerfsd" in path.parts], ids=name_of)
def test_only_core_imports_the_compiled_module(path: Path) -> None:
    if not name_of(path).startswith("ledgerfsd/core/"):
        assert not re.search(r"\b_core\b", source(path))


@pytest.mark.parametrize("path", tracked(".md"), ids=name_of)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", source(path)):
        assert (path.parent / target).exists(), f"{name_of(path)}: {target}"


def test_read_me_names_the_commands_exactly() -> None:
    text = source(REPOSITORY / "README.md")
    assert "\nmake run\n" in text
    assert "\nmake test\n" in text


def test_scripts_are_executable_and_parse() -> None:
    for path in [*(REPOSITORY / "tools").iterdir(), REPOSITORY / ".ci" / "run"]:
        if path.suffix in (".py", "") and path.is_file() and source(path).startswith("#!"):
            assert path.stat().st_mode & 0o111, name_of(path)
            if source(path).startswith("#!/bin/sh"):
                subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.parametrize(
    "path",
    tracked(""),
    ids=name_of,
)
def test_no_places_of_this_machine(path: Path) -> None:
    if path.suffix in (".so", ".o") or path.name in GENERATED:
        return
    assert "/wo" + "rk/" not in path.read_bytes().decode("utf-8", "replace"), name_of(path)
