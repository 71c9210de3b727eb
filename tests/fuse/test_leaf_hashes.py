"""What stands in a transaction file is what was hashed: a shell can check it, and attribute and tile say the same."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Daemon

HASH_BYTES = 32
TILE_WIDTH = 256
TRANSACTIONS = 600  # so that there are whole tiles and a partial one


def fill(mount: Path) -> None:
    lines = [
        '{"type":"open_account","account":"acc_001","currency":"EUR","class":"customer_liability","initial_balance":"100.00"}',
        '{"type":"open_account","account":"acc_002","currency":"EUR","class":"customer_liability"}',
        '{"debit":"acc_001","credit":"acc_002","amount":"12.50","reference":"Rechnung \\"42\\" \\\\ \\u20ac ü"}',
    ]
    lines += [
        f'{{"debit":"acc_001","credit":"acc_002","amount":"0.01","metadata":{{"n":{number}}}}}'
        for number in range(TRANSACTIONS)
    ]
    (mount / "inbox" / "fill.ndjson").write_text("\n".join(lines) + "\n")


def shell_hash(directory: Path, name: str) -> str:
    """As in the README and in the issue: nothing but a shell and coreutils."""
    command = f"(printf '\\0'; cat {name}) | sha256sum"
    done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.ledgerfs.{name}").decode()


def tile(mount: Path, index: int, kind: str = "0") -> bytes:
    """The tile (or bundle) that holds an index, whole or partial, under the name that C2SP tlog-tiles gives it."""
    number = index // TILE_WIDTH
    assert number < 1000
    path = mount / "log" / "tile" / kind / f"{number:03}"
    if path.exists():
        return path.read_bytes()
    (partial,) = path.with_suffix(".p").iterdir()
    return partial.read_bytes()


def hash_in_tile(mount: Path, index: int) -> str:
    place = index % TILE_WIDTH * HASH_BYTES
    return tile(mount, index)[place : place + HASH_BYTES].hex()


def entry_in_bundle(mount: Path, index: int) -> bytes:
    data = tile(mount, index, "entries")
    for _ in range(index % TILE_WIDTH):
        data = data[2 + int.from_bytes(data[:2], "big") :]
    return data[2 : 2 + int.from_bytes(data[:2], "big")]


def check(mount: Path, directory: str, name: str) -> None:
    path = mount / directory / name
    text = path.read_bytes()
    index = json.loads(text)["index"]
    leaf = shell_hash(mount / directory, name)
    assert attribute(path, "leaf") == leaf
    assert attribute(path, "index") == str(index)
    assert hash_in_tile(mount, index) == leaf
    assert entry_in_bundle(mount, index) == text


def test_shell_attribute_and_tile_agree(mounted: Daemon) -> None:
    fill(mounted.path)
    transactions = len(list((mounted.path / "transactions").iterdir()))
    assert transactions == TRANSACTIONS + 2  # the opening balance and the first payment besides
    for number in (1, 2, 3, 254, 255, 256, 257, 512, transactions - 1, transactions):
        check(mounted.path, "transactions", f"tx_{number:04}.json")
    for block in sorted(path.name for path in (mounted.path / "blocks").iterdir()):
        check(mounted.path, "blocks", block)


def test_seal_of_a_transaction_names_its_block(mounted: Daemon) -> None:
    fill(mounted.path)
    path = mounted.path / "transactions" / "tx_0001.json"
    seal = json.loads((mounted.path / "blocks" / f"{int(attribute(path, 'seal')):08}.json").read_bytes())
    assert seal["first"] <= int(attribute(path, "index")) < seal["index"]
    assert attribute(path, "as_of") == json.loads(path.read_bytes())["time"]


def test_the_same_after_a_restart(store: Path, daemons: Callable[..., Daemon]) -> None:
    daemon = daemons(store).start()
    fill(daemon.path)
    before = attribute(daemon.path / "transactions" / "tx_0300.json", "leaf")
    daemon.kill()
    daemon.start()
    check(daemon.path, "transactions", "tx_0300.json")
    assert attribute(daemon.path / "transactions" / "tx_0300.json", "leaf") == before
