"""What the tests of the stand-alone verifier share: the verifier itself, a signer, stores, and state trees made from FORMAT 12 anew."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledgerfsd.core.engine import Engine
from ledgerfsd.types import Mode
from tests.conftest import REPOSITORY
from tests.crash.intents import lines

SEGMENT_BYTES = 256 * 1024
ORIGIN = "ledger.example/verify"
VECTORS = Path(__file__).parent.parent / "vectors"

_spec = importlib.util.spec_from_file_location("ledgerfs_verify", REPOSITORY / "tools" / "ledgerfs_verify.py")
assert _spec is not None
assert _spec.loader is not None
verify: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(verify)


# ---- hashes, notes, proofs


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def split(count: int) -> int:
    """The largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1


def mth(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha()
    k = split(len(leaves))
    return sha(b"\x01", mth(leaves[:k]), mth(leaves[k:]))


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*inclusion(leaves[:k], index), mth(leaves[k:])]
    return [*inclusion(leaves[k:], index - k), mth(leaves[:k])]


def consistency(leaves: Sequence[bytes], old: int, whole: bool = True) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*consistency(leaves[:k], old, whole), mth(leaves[k:])]
    return [*consistency(leaves[k:], old - k, False), mth(leaves[:k])]


class Signer:
    """A test key."""

    def __init__(self, name: str = ORIGIN, seed: int = 1) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.name = name
        public = b"\x01" + self._key.public_key().public_bytes_raw()
        self.id = sha(name.encode(), b"\n", public)[:4]
        self.vkey = f"{name}+{self.id.hex()}+{base64.b64encode(public).decode()}"

    def line(self, text: str) -> str:
        return f"\u2014 {self.name} {base64.b64encode(self.id + self._key.sign(text.encode())).decode()}\n"

    def sign(self, text: str) -> str:
        return f"{text}\n{self.line(text)}"

    def checkpoint(self, leaves: Sequence[bytes], origin: str = ORIGIN) -> str:
        return self.sign(f"{origin}\n{len(leaves)}\n{base64.b64encode(mth(leaves)).decode()}\n")

    def proof(self, leaves: Sequence[bytes], index: int) -> str:
        hashes = "".join(base64.b64encode(each).decode() + "\n" for each in inclusion(leaves, index))
        return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{self.checkpoint(leaves)}"


# ---- stores


def intents() -> list[list[dict[str, Any]]]:
    """Batches with every kind of entry: over 1,000 transactions."""
    kinds = [
        ("bank", "safeguarding_asset", "EUR"),
        ("fees", "income", "EUR"),
        ("cost", "expense", "EUR"),
        ("yen", "customer_liability", "JPY"),
        ("yen-bank", "safeguarding_asset", "JPY"),
        ("points", "customer_liability", "PTS"),
        ("dinar", "customer_liability", "BHD"),
        *((f"c{number:02}", "customer_liability", "EUR") for number in range(13)),
    ]
    opened = [{"type": "open_account", "account": n, "class": c, "currency": u, "id": f"o-{n}"} for n, c, u in kinds]
    opened[0] |= {"initial_balance": "500000.00", "owner": "Bank", "tags": ["a", "b"]}
    for each in opened[7:]:
        each["initial_balance"] = "10000.00"
    opened[3]["initial_balance"], opened[6]["initial_balance"] = "9000", "12.345"
    found: list[list[dict[str, Any]]] = [
        [{"type": "register_currency", "currency": "PTS", "decimals": 4, "id": "pts"}],
        opened,
    ]
    for batch in range(17):
        now = [transfer(batch, number) for number in range(62)]
        hold, kept = f"h{batch}", f"k{batch}"
        now += [
            {"type": "hold", "id": hold, "debit": "c00", "credit": "bank", "amount": "5.00"},
            {
                "type": "hold",
                "id": kept,
                "debit": "c01",
                "credit": "c02",
                "amount": "3.00",
                "expires": "2190-01-01T00:00:00Z",
            },
            {"type": "post", "id": f"p{batch}", "hold": hold, "amount": "2.50"},
            {"type": "reverse", "id": f"r{batch}", "of": f"tx_{batch + 20:04}"},
            {
                "id": f"no{batch}",
                "debit": "points",
                "credit": "points2",
                "amount": "1.0000",
                "metadata": {"ü": [1, {"😀": "\ue000"}]},
            },
            {"id": "t0-0", "debit": "c03", "credit": "c04", "amount": "7.77"},
        ]
        if batch % 4 == 1:
            now += [{"type": "void", "id": f"v{batch}", "hold": kept}]
            now += [{"type": kind, "account": "cost", "id": f"{kind}{batch}"} for kind in ("freeze", "unfreeze")]
        found.append(now)
    found.append([{"type": "close_account", "account": "points"}, {"type": "close_period", "through": "2026-01-31"}])
    return found


def transfer(batch: int, number: int) -> dict[str, Any]:
    name = f"t{batch}-{number}"
    if number % 9 == 8:
        legs = [("c05", "debit", "3.00", "EUR"), ("fees", "credit", "1.00", "EUR"), ("c06", "credit", "2.00", "EUR")]
        legs += [("yen", "debit", "4", "JPY"), ("yen-bank", "credit", "4", "JPY"), ("c05", "credit", "1.00", "EUR")]
        legs += [("cost", "debit", "1.00", "EUR")]
        names = ("account", "side", "amount", "currency")
        return {"id": name, "type": "transaction", "postings": [dict(zip(names, leg, strict=True)) for leg in legs]}
    debit, credit = f"c{number % 13:02}", f"c{(number * 5 + batch + 1) % 13:02}"
    return {
        "id": name,
        "debit": debit,
        "credit": credit if credit != debit else "bank",
        "amount": f"{number % 7 + 1}.0{batch % 10}",
    }


def make(root: Path) -> Path:
    """A store made by the engine; one hold expires in it."""
    (root / "journal").mkdir(parents=True)
    start = 1_790_000_000_000_000_000
    Engine.create(root, ORIGIN, segment_bytes=SEGMENT_BYTES, now_ns=start)
    engine = Engine(root, segment_bytes=SEGMENT_BYTES)
    engine.start()
    short = {
        "type": "hold",
        "id": "short",
        "debit": "c01",
        "credit": "c02",
        "amount": "1.00",
        "expires": "2026-09-21T14:13:25.5Z",
    }
    batches = intents()
    batches[4].append(short)
    for number, batch in enumerate(batches):
        engine.submit(lines(batch), source=b"v", first_line=1, mode=Mode.EACH, now_ns=start + (number + 1) * 10**9)
        engine.drain()
        engine.completions()
    engine.close()
    return root


def entries_of(root: Path) -> list[bytes]:
    found = []
    for path in sorted((root / "journal").glob("*.seg")):
        data, at = path.read_bytes(), 0
        while at + 2 <= len(data) and (length := int.from_bytes(data[at : at + 2], "big")):
            found.append(data[at + 2 : at + 2 + length])
            at += 2 + length
    return found


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def seal_again(
    entries: Sequence[bytes], *, states: bool, change: Callable[[int, dict[str, Any]], None] | None = None
) -> list[bytes]:
    """All entries with hashes and seals made anew: what somebody does who can write everything."""
    leaves: list[bytes] = []
    found: list[bytes] = []
    prev, policy, first, state = bytes(32), b"", 0, State()
    for index, data in enumerate(entries):
        value = json.loads(data)
        if change is not None:
            change(index, value)
        if value["t"] == "seal/1":
            value |= {
                "prev": prev.hex(),
                "policy": policy.hex(),
                "log_root": mth(leaves).hex(),
                "tx_root": mth(leaves[first:]).hex(),
            }
            if states:
                value["state_root"] = state.root().hex()
        data = canonical(value) if value != json.loads(data) else data
        leaf = sha(b"\0", data)
        if value["t"] == "seal/1":
            prev, first = leaf, index + 1
        elif value["t"] in ("genesis/1", "policy/1"):
            policy = leaf
        if states:
            state.apply(index, value)
        leaves.append(leaf)
        found.append(data)
    return found


def write_store(root: Path, entries: Sequence[bytes], per_segment: int = 512) -> Path:
    """A store with these entries and without projections."""
    (root / "journal").mkdir(parents=True)
    for first in range(0, len(entries), per_segment):
        data = b"".join(len(each).to_bytes(2, "big") + each for each in entries[first : first + per_segment])
        (root / "journal" / f"{first:020}.seg").write_bytes(data)
    return root


def tile_name(number: int) -> str:
    return f"{number:03}"  # enough for tests: below 256,000 entries


def write_mount(root: Path, entries: Sequence[bytes]) -> Path:
    """log/tile/ as the mount shows it."""
    tile = root / "log" / "tile"
    leaves = [sha(b"\0", each) for each in entries]
    levels = {"entries": [len(each).to_bytes(2, "big") + each for each in entries], "0": leaves}
    levels["1"] = [mth(leaves[at : at + 256]) for at in range(0, len(leaves) - 255, 256)]
    for level, items in levels.items():
        for number in range(0, len(items), 256):
            part = items[number : number + 256]
            path = tile / level / (tile_name(number // 256) + (f".p/{len(part)}" if len(part) < 256 else ""))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(part))
    return root


# ---- the state tree, from FORMAT 12 (recursive: nothing is kept)

Node = tuple[bytes, tuple[int, int, int], int]  # hash, sums, height


def lp(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def sums_bytes(sums: Sequence[int]) -> bytes:
    return b"".join(each.to_bytes(24, "big") for each in sums)


def account_leaf(a: dict[str, Any]) -> Node:
    numbers = [a[name] for name in ("debits", "credits", "held_debits", "held_credits")]
    data = (
        b"\x10"
        + a["ordinal"].to_bytes(8, "big")
        + lp(a["account"])
        + lp(a["currency"])
        + bytes([a["decimals"]])
        + lp(a["class"])
    )
    data += bytes([["debit", "credit"].index(a["normal"]), ["open", "frozen", "closed"].index(a["status"])])
    data += (
        a["entries"].to_bytes(8, "big")
        + a["last"].to_bytes(8, "big")
        + b"".join(n.to_bytes(16, "big") for n in numbers)
    )
    return sha(data), (numbers[0], numbers[1], max(0, numbers[1] - numbers[0])), 0


def join(left: Node, right: Node) -> Node:
    data = bytes([0x11, left[2] + 1]) + left[0] + sums_bytes(left[1]) + right[0] + sums_bytes(right[1])
    a, b = left[1], right[1]
    return sha(data), (a[0] + b[0], a[1] + b[1], a[2] + b[2]), left[2] + 1


def fold(leaves: Sequence[Node]) -> Node:
    return (
        leaves[0] if len(leaves) == 1 else join(fold(leaves[: split(len(leaves))]), fold(leaves[split(len(leaves)) :]))
    )


def siblings(leaves: Sequence[Node], at: int) -> list[Node]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    return (
        [*siblings(leaves[:k], at), fold(leaves[k:])] if at < k else [*siblings(leaves[k:], at - k), fold(leaves[:k])]
    )


class State:
    """Accounts as the entries state them."""

    def __init__(self) -> None:
        self.accounts: dict[str, dict[str, Any]] = {}
        self.decimals = {"EUR": 2, "JPY": 0, "BHD": 3}

    def apply(self, index: int, value: dict[str, Any]) -> None:
        if value["t"] == "account/1":
            names = ("account", "class", "currency", "normal")
            made = {name: value[name] for name in names} | {
                "ordinal": len(self.accounts),
                "status": "open",
                "entries": 1,
                "last": index,
            }
            made |= {
                "decimals": self.decimals[value["currency"]],
                "debits": 0,
                "credits": 0,
                "held_debits": 0,
                "held_credits": 0,
            }
            self.accounts[value["account"]] = made
        elif value["t"] == "policy/1" and value["policy"] == "currency":
            self.decimals[value["currency"]] = value["decimals"]
        elif value["t"] == "account.update/1":
            self.accounts[value["account"]]["status"] = value["status"]
        for name in {posting["account"] for posting in value.get("postings", [])} | (
            {value["account"]} if "prev" in value and "action" in value else set()
        ):
            self.accounts[name]["entries"] += 1
            self.accounts[name]["last"] = index
        for posting in value.get("postings", []):
            for total in ("debits", "credits", "held_debits", "held_credits"):
                if total in posting:
                    self.accounts[posting["account"]][total] = int(posting[total].replace(".", ""))

    def trees(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        names = sorted({(a["currency"], a["class"]) for a in self.accounts.values()})
        return [(u, c, [a for a in self.accounts.values() if (a["currency"], a["class"]) == (u, c)]) for u, c in names]

    def root(self) -> bytes:
        return root_of(
            [(u, c, len(members), fold([account_leaf(a) for a in members])) for u, c, members in self.trees()]
        )


def root_of(trees: Sequence[tuple[str, str, int, Node]]) -> bytes:
    data = b"\x12" + sum(tree[2] for tree in trees).to_bytes(8, "big") + len(trees).to_bytes(4, "big")
    for currency, kind, count, top in trees:
        data += lp(currency) + lp(kind) + count.to_bytes(8, "big") + sums_bytes(top[1]) + top[0]
    return sha(data)


SUMS = ("debits", "credits", "liability")


def amount_text(minor: int, decimals: int) -> str:
    whole, rest = divmod(minor, 10**decimals)
    return f"{whole}.{rest:0{decimals}}" if decimals else str(whole)


def balance_proof(
    signer: Signer,
    accounts: Sequence[dict[str, Any]],
    name: str,
    spoil: Callable[[Any], None] | None = None,
    says: int = 6,
) -> dict[str, Any]:
    """A proof over these accounts. `spoil` may change the nodes beside the account's path before anything is hashed over them.

    `says`: the index that the seal states; it is entry 6.
    """
    state = State()
    state.accounts = {account["account"]: account for account in accounts}
    own = state.accounts[name]
    trees, position, path = [], 0, []
    for currency, kind, members_ in state.trees():
        leaves = [account_leaf(account) for account in members_]
        top = fold(leaves)
        if (currency, kind) == (own["currency"], own["class"]):
            position = members_.index(own)
            path, node = siblings(leaves, position), leaves[position]
            if spoil is not None:
                spoil(path)
            for (height, left), sibling in zip(verify.steps(position, len(leaves)), path, strict=True):
                low, high = (sibling, node) if left else (node, sibling)
                node = join((low[0], low[1], height - 1), high)
            top = node
        trees.append((currency, kind, len(members_), top))
    filler = [canonical({"t": "note", "index": index}) for index in range(6)]
    seal = canonical(
        {"t": "seal/1", "index": says, "state_root": root_of(trees).hex(), "time": "2026-01-01T00:00:00.000000000Z"}
    )
    leaves_ = [sha(b"\0", each) for each in [*filler, seal]]
    shown = own | {
        total: amount_text(own[total], own["decimals"])
        for total in ("debits", "credits", "held_debits", "held_credits")
    }
    numbers = [dict(zip(SUMS, map(str, top[1]), strict=True)) for *_, top in trees]
    listed = [
        {"currency": u, "class": c, "accounts": n, "root": top[0].hex()} | sums
        for (u, c, n, top), sums in zip(trees, numbers, strict=True)
    ]
    steps = [{"hash": node[0].hex()} | dict(zip(SUMS, map(str, node[1]), strict=True)) for node in path]
    made = {"t": "balance-proof/1", "account": shown, "position": position, "path": steps, "trees": listed}
    return made | {"seal": seal.decode(), "proof": signer.proof(leaves_, 6)}
