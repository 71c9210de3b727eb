"""Balance proofs (docs/FORMAT.md, section 13): everything from an account to a signed checkpoint in one file.

``text`` writes one, ``verify`` believes nothing in it that does not follow from a signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from ledgerfsd.core.hashing import leaf_hashes
from ledgerfsd.core.json import is_canonical
from ledgerfsd.core.pure import state_tree
from ledgerfsd.core.pure.intent import CLASSES, is_account_name
from ledgerfsd.core.pure.state_tree import Node, Sums, Total
from ledgerfsd.limits import DECIMALS_MAX
from ledgerfsd.merkle import checkpoint as checkpoints
from ledgerfsd.merkle import tlog_proof
from ledgerfsd.merkle.proof import ProofError, verify_inclusion
from ledgerfsd.money import format_amount, is_currency, parse
from ledgerfsd.types import Account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ledgerfsd.core.values import StateProof
    from ledgerfsd.core.values import Sums as EngineSums
    from ledgerfsd.merkle.checkpoint import Checkpoint
    from ledgerfsd.merkle.note import Verifier

KIND: Final = "balance-proof/1"
PROOF_BYTES_MAX: Final = 1 << 20
_HEAD_BYTES: Final = 1 + 8 + 4  # of the list of trees: tag, accounts, trees
_SUM_BYTES: Final = 24
_HASH_BYTES: Final = 32
_TOTAL_LIMIT: Final = 1 << 127
_SUM_LIMIT: Final = 1 << 8 * _SUM_BYTES


def text(proof: StateProof, seal: bytes, tlog_proof: bytes) -> bytes:
    """The file. ``seal``: the bytes of the seal that carries the state root; ``tlog_proof``: that it is in a signed log."""
    value = {
        "t": KIND,
        "account": _account(proof.account),
        "position": proof.position,
        "path": [{"hash": node.hash.hex(), **_sums(node.sums)} for node in proof.path],
        "trees": list(_trees(proof.trees)),
        "seal": seal.decode(),
        "proof": tlog_proof.decode(),
    }
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _account(account: Account) -> dict[str, Any]:
    numbers = {
        name: format_amount(getattr(account, name), account.decimals)
        for name in ("debits", "credits", "held_debits", "held_credits")
    }
    return {
        "account": account.name,
        "ordinal": account.ordinal,
        "currency": account.currency,
        "decimals": account.decimals,
        "class": account.account_class,
        "normal": account.normal,
        "status": account.status,
        "entries": account.entries,
        "last": account.last_index,
        **numbers,
    }


def _sums(sums: EngineSums) -> dict[str, str]:
    return {"debits": str(sums.debits), "credits": str(sums.credits), "liability": str(sums.liability)}


def _trees(data: bytes) -> Iterator[dict[str, Any]]:
    """The trees as they stand in what the state root is the hash of."""
    at = _HEAD_BYTES

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    def number(size: int) -> int:
        return int.from_bytes(take(size), "big")

    while at < len(data):
        currency, account_class = take(number(2)).decode(), take(number(2)).decode()
        accounts = number(8)
        sums = [str(number(_SUM_BYTES)) for _ in range(3)]
        yield {
            "currency": currency,
            "class": account_class,
            "accounts": accounts,
            **dict(zip(("debits", "credits", "liability"), sums, strict=True)),
            "root": take(_HASH_BYTES).hex(),
        }


class _Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    account: str
    ordinal: int
    currency: str
    decimals: int
    account_class: str = msgspec.field(name="class")
    normal: str
    status: str
    entries: int
    last: int
    debits: str
    credits: str
    held_debits: str
    held_credits: str


class _Sibling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hash: str
    debits: str
    credits: str
    liability: str


class _Tree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    currency: str
    account_class: str = msgspec.field(name="class")
    accounts: int
    debits: str
    credits: str
    liability: str
    root: str


class _Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    t: str
    account: _Leaf
    position: int
    path: list[_Sibling]
    trees: list[_Tree]
    seal: str
    proof: str


class Proven(NamedTuple):
    """What a balance proof proves."""

    account: Account  # what is not in a leaf is 0 or None
    own: Total  # the tree of the account's currency and class
    totals: list[Total]  # of the whole ledger
    checkpoint: Checkpoint


def verify(data: bytes, origin: str, verifiers: Iterable[Verifier]) -> Proven:
    """What the proof proves, by the word of one of the keys. Raises ProofError (NoteError for notes and signatures)."""
    if len(data) > PROOF_BYTES_MAX:
        raise ProofError(f"a balance proof of more than {PROOF_BYTES_MAX} bytes")
    try:
        found = msgspec.json.decode(data, type=_Proof)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the latter for names of members
        raise ProofError(f"not a balance proof: {error}") from None
    if found.t != KIND:
        raise ProofError(f"of kind {found.t!r}, not {KIND!r}")
    account = _read_account(found.account)
    totals = [_read_tree(tree) for tree in found.trees]
    _check_totals(totals)
    own = _follow(found, account, totals)
    if not found.position <= account.ordinal < sum(tree.accounts for tree in totals):
        raise ProofError(f"position {found.position} or ordinal {account.ordinal} is impossible among these accounts")
    seal = found.seal.encode()
    state_root, index = _read_seal(seal)
    if state_tree.state_root(totals).hex() != state_root:
        raise ProofError("the trees do not have the seal's state root")
    signed = tlog_proof.parse(found.proof.encode())
    if not account.last_index < index == signed.index:
        raise ProofError("the seal is not the entry that is proven, or the account's last entry lies behind it")
    checkpoint, _ = checkpoints.verify(signed.checkpoint, origin, verifiers)
    if signed.index != checkpoint.size - 1:
        raise ProofError("the seal is not the last entry of the signed log: this is not its newest state")
    verify_inclusion(signed.index, checkpoint.size, leaf_hashes([seal]), signed.hashes, checkpoint.root)
    return Proven(account, own, totals, checkpoint)


def tlog_proof_in(data: bytes) -> bytes:
    """The tlog-proof in a balance proof, for those who have verified it, or only want to see. Raises ProofError."""
    try:
        return msgspec.json.decode(data, type=_Proof).proof.encode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the latter for names of members
        raise ProofError(f"not a balance proof: {error}") from None


def _read_account(leaf: _Leaf) -> Account:
    if not (0 <= leaf.ordinal < 1 << 64 and 0 < leaf.entries < 1 << 64 and 0 <= leaf.last < 1 << 64):
        raise ProofError("a number of the account is out of range")
    if not (is_account_name(leaf.account) and is_currency(leaf.currency) and leaf.account_class in CLASSES):
        raise ProofError("no account can have this name, currency or class")
    if not 0 <= leaf.decimals <= DECIMALS_MAX or leaf.normal not in ("debit", "credit"):
        raise ProofError("the account's decimals or normal side are none")
    if leaf.status not in ("open", "frozen", "closed"):
        raise ProofError(f"the account's status {leaf.status!r} is none")
    try:
        debits, credits, held_debits, held_credits = (
            parse(amount, leaf.decimals) for amount in (leaf.debits, leaf.credits, leaf.held_debits, leaf.held_credits)
        )
    except ValueError as error:
        raise ProofError(f"a total of the account: {error}") from None
    if max(debits, credits, held_debits, held_credits) >= _TOTAL_LIMIT:
        raise ProofError("a total of the account is 2^127 or more")
    return Account(
        ordinal=leaf.ordinal, name=leaf.account, currency=leaf.currency, decimals=leaf.decimals,
        account_class=leaf.account_class, normal=leaf.normal, status=leaf.status, debits=debits, credits=credits,
        held_debits=held_debits, held_credits=held_credits, overdraft=None, open_index=0, last_index=leaf.last, last_tx=0,
        entries=leaf.entries, log_bytes=0,
    )  # fmt: skip


def _read_tree(tree: _Tree) -> Total:
    if not is_currency(tree.currency) or tree.account_class not in CLASSES:
        raise ProofError("there is no tree of such a currency or class")
    if not 0 < tree.accounts < 1 << 64:
        raise ProofError("a tree has no accounts, or more than there can be")
    return Total(tree.currency, tree.account_class, tree.accounts, _read_sums(tree), _read_hash(tree.root))


def _read_sums(found: _Sibling | _Tree) -> Sums:
    sums = Sums(*(_read_sum(text) for text in (found.debits, found.credits, found.liability)))
    if not max(0, sums.credits - sums.debits) <= sums.liability <= sums.credits:
        raise ProofError(f"no accounts can have the sums {sums}: a liability is hidden or made up")
    return sums


def _read_sum(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or str(int(text[:64])) != text:
        raise ProofError(f"{text[:64]!r} is not a sum: digits without a sign or leading zeros")
    if int(text) >= _SUM_LIMIT:
        raise ProofError("a sum is 2^192 or more")
    return int(text)


def _read_hash(text: str) -> bytes:
    if len(text) != 2 * _HASH_BYTES or text.strip("0123456789abcdef"):
        raise ProofError(f"{text[:70]!r} is not a hash")
    return bytes.fromhex(text)


def _check_totals(totals: list[Total]) -> None:
    names = [(tree.currency.encode(), tree.account_class.encode()) for tree in totals]
    if names != sorted(set(names)):
        raise ProofError("the trees are not in order, or one is there twice")
    for currency in {tree.currency for tree in totals}:
        sums = [tree.sums for tree in totals if tree.currency == currency]
        if sum(each.debits for each in sums) != sum(each.credits for each in sums):
            raise ProofError(f"debits and credits of {currency} differ")


def _follow(found: _Proof, account: Account, totals: list[Total]) -> Total:
    """The tree to which the account's leaf leads."""
    named = [
        tree for tree in totals if (tree.currency, tree.account_class) == (account.currency, account.account_class)
    ]
    if len(named) != 1:
        raise ProofError(f"there is no tree of {account.currency} and {account.account_class}")
    own = named[0]
    siblings = [Node(_read_hash(each.hash), _read_sums(each)) for each in found.path]
    try:
        root = state_tree.follow(state_tree.leaf(account), found.position, own.accounts, siblings)
    except (ValueError, OverflowError) as error:
        raise ProofError(f"the path: {error}") from None
    if root != Node(own.root, own.sums):
        raise ProofError("the account's leaf does not lead to the root and the sums of its tree")
    return own


def _read_seal(seal: bytes) -> tuple[str, int]:
    """Its state root, and the index that it says."""
    if not is_canonical(seal):
        raise ProofError("the seal is not canonical JSON")
    try:
        value = msgspec.json.decode(seal, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the latter for names of members
        raise ProofError(f"the seal: {error}") from None
    root, index = value.get("state_root"), value.get("index")
    if value.get("t") != "seal/1" or not isinstance(root, str) or type(index) is not int:
        raise ProofError("the seal is not a seal/1 that carries a state root")
    return root, index
