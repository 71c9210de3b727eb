#!/usr/bin/env python3
"""Verify a LedgerFS ledger, or proofs from it, without LedgerFS: Python's standard library and `cryptography` are all this file needs.

It was written from docs/FORMAT.md alone and shares no line with the program that it judges. Every refusal names the section of
FORMAT that is broken. Read it from top to bottom: JSON, fields, Merkle trees, signatures, state tree, replay, log, files.

  ledgerfs_verify.py checkpoint CHECKPOINT --key VKEY         a signed tree head
  ledgerfs_verify.py tx PROOF ENTRY --key VKEY                an entry (its exact bytes in a file) is in the log
  ledgerfs_verify.py balance PROOF.json --key VKEY            what an account has, up to the signed tree
  ledgerfs_verify.py consistency OLD NEW PROOF --key VKEY     nothing was rewritten between two checkpoints
  ledgerfs_verify.py store DIR [options]                      everything, from journal/*.seg (the ledger must not be running)
  ledgerfs_verify.py mount DIR [options]                      everything, from log/tile/ of a mounted ledger or of a copy of it

Options of store and mount: --checkpoint FILE and --anchor FILE, as often as you like (with --key): signed trees that the log must contain;
or a folder of them, or digests/. Take them, and the key, from OUTSIDE the machine under audit: without them a consistent forgery, or a log
cut off, does not show. All commands: --json, --quiet. VKEY: a C2SP verifier key (name+id+base64), a file with one, or a trusted_root.json,
of whose keys the log must say the same (the log alone makes none trusted); repeat --key for several.
--policy FILE: a C2SP tlog-policy whose quorum of witnesses must have cosigned each checkpoint; its logs do instead of --key. Files *.cosig
beside a file `checkpoint`, as in digests/<size>/, are taken for lines of it. Time stamps (*.tsr) are RFC 3161, and openssl judges them:
  openssl ts -verify -data digests/SIZE/checkpoint -in digests/SIZE/NAME.tsr -CAfile ROOTS.pem
Store and mount verify framing, canonical JSON, numbers, times, every stored hash, the chain of seals and their roots, every running total
by replay, limits, frozen and closed accounts and periods, holds and expiry, reversals, ids, chains, state roots. NOT verified: whether
what was refused had to be; hashes of accepted intents (not in the log); anchor/1; genesis.json, receipts/, runs/, index.lmdb/ (FORMAT 1).
Exit code: 0 verified, 1 does not verify (file, entry and reason are printed), 2 wrong usage, 3 a file cannot be read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import heapq
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Object = dict[str, Any]
Key = tuple[str, bytes, bytes, Object]  # name, id, the 32 bytes, what a trusted root says of it
Checkpoint = tuple[str, int, bytes]  # origin, size, root


class Fault(Exception):  # it does not verify; the reason begins with the section of FORMAT that is broken
    def __init__(self, reason: str, file: str = "", entry: int | None = None) -> None:
        self.reason, self.file, self.entry = "FORMAT " * reason[0].isdigit() + reason, file, entry


def check(good: object, reason: str) -> None:
    if not good:
        raise Fault(reason)


# ---- JSON (FORMAT 2)
def integer(text: str) -> int:
    good = re.fullmatch("-?[0-9]{1,16}", text) and abs(int(text)) < 2**53
    check(good, f"2: {text[:40]} is not an integer below 2^53")
    return int(text)


def to_json(value: Any) -> bytes:  # canonical, if the members are in order: Python escapes exactly what RFC 8785 does
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def parse_json(data: bytes, *, canonical: bool = True) -> Object:  # integers only, no name twice; canonical: RFC 8785

    def ordered(pairs: list[tuple[str, Any]]) -> Object:
        names = [name.encode("utf-16-be") for name, _ in pairs]  # "sorted by the UTF-16 code units of their names"
        check(len(set(names)) == len(names), "2: a member name is repeated")
        check(names == sorted(names) or not canonical, "2: the member names are out of order")
        return dict(pairs)

    try:
        text = data.decode("utf-8")
        value = json.JSONDecoder(object_pairs_hook=ordered, parse_int=integer, parse_float=integer).decode(text)
        same = to_json(value) == data
    except (RecursionError, ValueError) as error:  # not UTF-8, not JSON, unpaired surrogates
        raise Fault(f"2: not valid JSON: {error}") from None
    check(isinstance(value, dict), "2: the JSON is not an object")
    if canonical:
        check(same and 2 <= len(data) <= 65535, "2: the JSON is not in canonical form, or too long")
        if data.count(b"{") + data.count(b"[") > 16:
            marks = re.findall(r"[][{}]", re.sub(r'"(\\.|[^"\\])*"', "", text))
            deepest = max(accumulate(1 if each in "[{" else -1 for each in marks))
            check(deepest <= 16 + (value.get("t") == "rejected/1"), "2: the JSON is nested too deeply")
    return dict(value)


# ---- fields (FORMAT 5)
TOTAL_LIMIT, SUM_LIMIT = 2**127, 2**192
CLASS = "customer_liability|safeguarding_asset|own_funds|equity|income|expense|suspense|clearing"
SIDES, STATUSES = {"debit": 0, "credit": 1}, {"open": 0, "frozen": 1, "closed": 2}
DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
TIME = re.compile(DATE + r"T([01][0-9]|2[0-3])(:[0-5][0-9]){2}\.[0-9]{9}Z")  # such times sort as text
AMOUNT = re.compile(r"[0-9]{1,60}(\.[0-9]{1,20})?")
NATURAL = re.compile(r"0|[1-9][0-9]{0,59}")
RULES: dict[str, tuple[type, Callable[[Any], object]]] = {  # of a member of that name: type, and what else holds
    name: (kind, holds)
    for names, kind, holds in (
        ("id hold t type policy action status reason code limit proof seal ledger reference owner name", str, bool),
        ("index tx reverses prev position ordinal entries last accounts", int, lambda number: number >= 0),
        ("size signed_size valid_from_size valid_to_size incarnation", int, lambda number: number >= 0),
        ("debits credits held_debits held_credits amount liability", str, AMOUNT.fullmatch),
        ("intent intent_hash currencies hash root signed_root", str, re.compile("[0-9a-f]{64}").fullmatch),
        ("metadata request", dict, lambda _: True),
        ("postings path trees tags", list, lambda _: True),
        ("side normal", str, SIDES.__contains__),
        ("class", str, re.compile(CLASS).fullmatch),
        ("time expires", str, TIME.fullmatch),
        ("effective through", str, re.compile(DATE).fullmatch),
        ("account", str, re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}").fullmatch),
        ("currency", str, re.compile(r"[A-Z][A-Z0-9]{2,11}").fullmatch),
        ("decimals", int, range(19).__contains__),
        ("kind", str, ("folder", "s3", "rfc3161", "witness").__contains__),
        ("vkey", str, re.compile(r"[!#-\[\]-~]{1,400}").fullmatch),
    )
    for name in names.split()
}


def members(what: str, value: Any, needed: str, optional: str = "") -> None:  # a bool is no int here
    check(type(value) is dict, f"7, 13: {what} is not an object")
    check({*needed.split()} <= value.keys(), f"7, 13: {what} lacks one of: {needed}")
    check(value.keys() <= {*needed.split(), *optional.split()}, f"7, 13: {what} has a member too many")
    for name, given in value.items():
        good = type(given) is RULES[name][0] and RULES[name][1](given)
        check(good, f"5: {name} of {what} cannot be {str(given)[:80]!r}")


def natural(text: str, limit: int) -> int:
    check(NATURAL.fullmatch(text) and int(text) < limit, f"13: {text[:80]!r} is no decimal number below {limit}")
    return int(text)


def written(minor: int, decimals: int) -> str:
    digits = str(minor).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits


def amount(text: str, decimals: int) -> int:
    minor = int(text.replace(".", "")) if AMOUNT.fullmatch(text) else -1
    check(minor >= 0 and written(minor, decimals) == text, f"5: {text[:80]!r}: no amount of {decimals} decimals")
    return minor


# ---- Merkle trees (FORMAT 3: RFC 6962; inclusion 2.1.1, consistency 2.1.2)
def digest(*parts: bytes) -> bytes:  # H: of a leaf with 0x00 before it, of a node with 0x01
    return hashlib.sha256(b"".join(parts)).digest()


def steps(index: int, size: int) -> Iterator[tuple[int, bool]]:  # height of the parent, sibling is left
    height, last = 1, size - 1
    while last > 0:
        if index & 1 or index < last:  # else there is no sibling, and the node stands in the next level as it is
            yield height, bool(index & 1)
        height, index, last = height + 1, index >> 1, last >> 1


def verify_inclusion(index: int, size: int, leaf: bytes, path: list[bytes], root: bytes) -> None:
    good = 0 <= index < size and all(len(each) == 32 for each in [leaf, root, *path])
    check(good, f"RFC 6962: index {index} does not lie in a tree of {size} leaves, or a hash does not have 32 bytes")
    way = list(steps(index, size))
    check(len(way) == len(path), f"RFC 6962: the proof has {len(path)} hashes, {len(way)} are needed")
    for (_, sibling_is_left), sibling in zip(way, path, strict=True):
        leaf = digest(b"\x01", sibling, leaf) if sibling_is_left else digest(b"\x01", leaf, sibling)
    check(leaf == root, "RFC 6962: the proof does not lead to the root of the checkpoint")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: list[bytes]) -> None:
    check(0 < old <= new, f"RFC 6962: nothing is proved from {old} to {new} leaves")
    check(all(len(each) == 32 for each in [old_root, new_root, *path]), "RFC 6962: a hash does not have 32 bytes")
    nodes = iter(path)

    def roots(m: int, n: int, known: bool) -> tuple[bytes, bytes]:  # SUBPROOF(m, D[n], known): of m, of all n leaves
        if m == n:
            return (old_root, old_root) if known else (next(nodes, b""),) * 2
        k = 1 << (n - 1).bit_length() - 1  # the largest power of two below n
        first, whole = roots(m, k, known) if m <= k else roots(m - k, n - k, False)
        node = next(nodes, b"")  # when the proof is too short it cannot lead to the roots
        if m <= k:
            return first, digest(b"\x01", whole, node)
        return digest(b"\x01", node, first), digest(b"\x01", node, whole)

    same = roots(old, new, True) == (old_root, new_root) and next(nodes, None) is None
    check(same, "RFC 6962: the newer tree does not begin with the older one, or the proof is too long or short")


class Frontier:  # a growing tree: the roots of its full subtrees, from left to right, as (height, root)
    def __init__(self) -> None:
        self.size = 0
        self.full: list[tuple[int, bytes]] = []

    def push(self, leaf: bytes) -> list[tuple[int, bytes]]:  # complete now: (level, hash)
        height, node, found = 0, leaf, [(0, leaf)]
        while self.full and self.full[-1][0] == height:
            height, node = height + 1, digest(b"\x01", self.full.pop()[1], node)
            if height % 8 == 0:
                found.append((height // 8, node))
        self.full.append((height, node))
        self.size += 1
        return found

    def root(self) -> bytes:
        node = self.full[-1][1] if self.full else digest()
        for _, left in self.full[-2::-1]:
            node = digest(b"\x01", left, node)
        return node


# ---- signed notes, checkpoints, proof files (FORMAT 13: C2SP signed-note, tlog-checkpoint, tlog-proof)
def unbase64(text: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise Fault(f"13 (base64): {text[:60]!r} is not base64") from None
    good = base64.b64encode(data).decode() == text and length in (None, len(data))
    check(good, f"13 (base64): {text[:60]!r} is not canonical base64, or not of {length} bytes")
    return data


def parse_key(text: str, kind: int = 1) -> Key:  # name+id+base64(kind || key): 0x01 for logs, 0x04 for witnesses
    found = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)\s*", text)
    if found is None:
        raise Fault("C2SP signed-note: the key is not of the form name+id+base64")
    data = unbase64(found[3], 33)
    check(data[0] == kind, f"C2SP signed-note: the key is not an Ed25519 key of type 0x{kind:02x}")
    check(digest(found[1].encode(), b"\n", data)[:4].hex() == found[2], "C2SP signed-note: not the id of this key")
    return found[1], bytes.fromhex(found[2]), data[1:], {"vkey": text.strip()}


def read_keys(text: str) -> Iterator[Key]:  # or those of a trusted_root.json
    root = parse_json(text.encode(), canonical=False) if text[:1] == "{" else {"keys": [{"vkey": text}]}
    for said in root["keys"]:
        stated = {name: value for name, value in said.items() if name != "name" and value is not None}
        yield (*parse_key(said["vkey"])[:3], stated)


def open_note(note: str, keys: list[Key], cosigned: bool = False) -> tuple[str, dict[str, Key]]:
    """The text of a note and our keys that signed it, by name (of witnesses also the time), none of them wrongly."""
    check(not re.search(r"[\x00-\x09\x0b-\x1f]", note), "C2SP signed-note: the note holds control characters")
    text, blank, block = note.rpartition("\n\n")
    lines, signers = block.split("\n")[:-1], {}
    good = blank and note.endswith("\n") and 0 < len(lines) <= 100
    check(good, "C2SP signed-note: no signatures, more than 100 signatures, or no newline at its end")
    for line in lines:
        found = re.fullmatch(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/=]+)", line)
        signature = unbase64(found[2]) if found else b""
        if found is None or len(signature) < 5:
            raise Fault(f"C2SP signed-note: not a signature line: {line[:60]!r}")
        known = [key for key in keys if key[:2] == (found[1], signature[:4])]
        check(len(known) < 2, f"C2SP signed-note: two of the given keys are {found[1]!r} with the same id")
        head, signature, who = "", signature[4:], found[1]
        if cosigned and known:  # C2SP tlog-cosignature: the time, 8 bytes, stands before the signature and is signed
            when, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            check(0 < when < 2**63, f"C2SP tlog-cosignature: the time of {found[1]!r} is impossible")
            head, who = f"cosignature/v1\ntime {when}\n", f"{found[1]} (time {when})"
        try:
            for key in known:  # RFC 8032, as OpenSSL judges it
                Ed25519PublicKey.from_public_bytes(key[2]).verify(signature, f"{head}{text}\n".encode())
                signers[who] = key
        except (InvalidSignature, ValueError):
            raise Fault(f"C2SP signed-note: the signature of {found[1]!r} is wrong") from None
    check(signers or cosigned, "C2SP signed-note: none of the given keys has signed it")
    return text + "\n", signers


class Policy:
    """FORMAT 14, C2SP tlog-policy: logs, witnesses, groups of them, and the quorum that must have cosigned. Names are octets."""

    def __init__(self, text: bytes = b"quorum none\n") -> None:
        self.logs: list[Key] = []
        self.witnesses: dict[bytes, Key] = {}
        self.groups: dict[bytes, tuple[int, list[bytes]]] = {}  # k, and the members; each refers only to names above it
        self.names, self.members, self.quorum = {b"none"}, {b"none"}, b""  # defined; cannot be a member (again)
        check(text[-1:] == b"\n", "14: the policy does not end with a newline")
        check(not re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", text), "14: the policy holds control characters")
        for line in text.split(b"\n"):
            words = line.replace(b"\t", b" ").split()
            good = not words or words[0][:1] == b"#" or self.read(words)
            check(good, f"14: no line of a policy, or of names that cannot stand here: {line[:90]!r}")
        check(self.quorum, "14: the policy has no quorum")

    def read(self, words: list[bytes]) -> bool:
        match words:
            case [b"log", vkey] | [b"log", vkey, _]:
                self.logs.append(parse_key(vkey.decode("utf-8", "replace")))
                return len({key[2] for key in self.logs}) == len(self.logs)
            case [b"witness", name, vkey] | [b"witness", name, vkey, _] if name not in self.names:
                self.names.add(name)
                self.witnesses[name] = parse_key(vkey.decode("utf-8", "replace"), 4)
                return len({key[2] for key in self.witnesses.values()}) == len(self.witnesses)
            case [b"group", name, k, *members] if name not in self.names:
                count = {b"any": 1, b"all": len(members)}.get(k) or natural(k.decode("latin-1"), 2**31)
                good = 1 <= count <= len(members) == len(set(members) & self.names - self.members)
                self.names, self.members = self.names | {name}, self.members | set(members)
                self.groups[name] = count, members
                return good
            case [b"quorum", name] if name in self.names and not self.quorum:
                self.quorum = name
                return True
        return False

    def check(self, note: str) -> list[str]:
        """Refuse a checkpoint without quorum, or with a wrong cosignature; who has cosigned, and when. Each counts once."""
        signers = open_note(note, list(self.witnesses.values()), cosigned=True)[1]
        held = {b"none"} | {name for name, key in self.witnesses.items() if key in signers.values()}
        for name, (count, members) in self.groups.items():
            held |= {name} if len(held & set(members)) >= count else set()
        by = ", ".join(signers) or "nobody"
        check(self.quorum in held, f"14: the quorum of the policy has not cosigned it, only: {by}")
        ours = not self.logs or note.partition("\n")[0] in open_note(note, self.logs)[1]
        check(ours, "14: no log of the policy with the name of the origin has signed it")
        return list(signers)


ANY = Policy()  # of those who ask for no witness


def verify_checkpoint(note: str, keys: list[Key], policy: Policy = ANY) -> Checkpoint:
    text, signers = open_note(note, keys)
    lines = text.split("\n")
    check(len(lines) == 4 and lines[0] and not lines[3], "C2SP tlog-checkpoint, 13: a checkpoint has three lines")
    check(lines[0] in signers, "C2SP tlog-checkpoint: no given key with the name of the origin has signed it")
    size = natural(lines[1], 2**63)
    current = [key for key in keys if key[3].get("valid_from_size", 0) <= size <= key[3].get("valid_to_size", size)]
    open_note(note, [key for key in current if key[0] == lines[0]])
    policy.check(note)
    return lines[0], size, unbase64(lines[2], 32)


def parse_tlog_proof(text: str) -> tuple[int, list[bytes], str]:
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    check(blank and lines.pop(0) == "c2sp.org/tlog-proof@v1", "C2SP tlog-proof: no tlog-proof@v1 with a checkpoint")
    if lines and lines[0].startswith("extra "):
        unbase64(lines.pop(0)[6:])
    check(lines and lines[0].startswith("index "), "C2SP tlog-proof: there is no index line")
    return natural(lines[0][6:], 2**63), [unbase64(line, 32) for line in lines[1:]], checkpoint


def verify_entry(proof: str, entry: bytes, keys: list[Key], policy: Policy = ANY) -> tuple[Object, Checkpoint]:
    """The entry is in the log, at the index that it says: its value, and the checkpoint that proves it."""
    index, path, note = parse_tlog_proof(proof)
    (origin, size, root), value = verify_checkpoint(note, keys, policy), parse_json(entry)
    verify_inclusion(index, size, digest(b"\x00", entry), path, root)
    check(type(value.get("index")) is int and value["index"] == index, f"4: the entry does not say index {index}")
    return value, (origin, size, root)


# ---- the state tree and balance proofs (FORMAT 12 and 13)
TOTALS, HELD, SUMS = "debits credits ", "held_debits held_credits ", "debits credits liability"
ACCOUNT = "account ordinal currency decimals class normal status entries last " + TOTALS + HELD
Sums, Node = tuple[int, ...], tuple[bytes, tuple[int, ...]]  # debits, credits, liability in minor units; hash and sums


def lp(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def u192(sums: Sums) -> bytes:
    check(max(sums) < SUM_LIMIT, "12: a sum does not stay below 2^192")
    return b"".join(each.to_bytes(24, "big") for each in sums)


class Account:  # an account, as replay or a proof has it; `place`: its position in the tree of its currency and class
    def __init__(self, name: str, ordinal: int, currency: str, decimals: int, kind: str, normal: str) -> None:
        self.name, self.ordinal, self.currency, self.decimals = name, ordinal, currency, decimals
        self.kind, self.normal, self.status, self.entries, self.last, self.place = kind, normal, "open", 1, 0, 0
        self.overdraft: int | None = None  # of an account with a limit
        self.totals = dict.fromkeys((TOTALS + HELD).split(), 0)

    def leaf(self) -> Node:
        check(max(self.totals.values()) < TOTAL_LIMIT, f"12: a total of account {self.name!r} is not below 2^127")
        data = b"\x10" + self.ordinal.to_bytes(8, "big") + lp(self.name) + lp(self.currency)
        data += bytes([self.decimals]) + lp(self.kind) + bytes([SIDES[self.normal], STATUSES[self.status]])
        data += self.entries.to_bytes(8, "big") + self.last.to_bytes(8, "big")
        data += b"".join(total.to_bytes(16, "big") for total in self.totals.values())
        debits, credits, *_ = self.totals.values()
        return digest(data), (debits, credits, max(0, credits - debits))


def sum_node(height: int, left: Node, right: Node) -> Node:
    data = b"\x11" + bytes([height]) + left[0] + u192(left[1]) + right[0] + u192(right[1])
    return digest(data), tuple(a + b for a, b in zip(left[1], right[1], strict=True))


def state_root(trees: list[tuple[str, str, int, bytes, Sums]]) -> bytes:  # currency, class, n, root, sums
    names = [(currency.encode(), kind.encode()) for currency, kind, *_ in trees]
    check(names == sorted(set(names)), "13 (3): trees are repeated or out of order")
    data = b"\x12" + sum(tree[2] for tree in trees).to_bytes(8, "big") + len(trees).to_bytes(4, "big")
    balance = dict.fromkeys((tree[0] for tree in trees), 0)
    for currency, kind, accounts, root, sums in trees:
        data += lp(currency) + lp(kind) + accounts.to_bytes(8, "big") + u192(sums) + root
        balance[currency] += sums[0] - sums[1]
    check(not any(balance.values()), f"13 (3): debits and credits differ, by minor units: {balance}"[:200])
    return digest(data)


class SumTree:  # the tree of one currency and class. Nodes are kept until an account below them is touched
    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.nodes: dict[tuple[int, int], Node] = {}  # (height, position)

    def touch(self, place: int) -> None:
        for height in range(len(self.accounts).bit_length() + 1):
            self.nodes.pop((height, place >> height), None)

    def node(self, height: int, place: int) -> Node:  # of the accounts from place * 2^height on
        if (height, place) not in self.nodes:
            left = self.node(height - 1, 2 * place) if height else self.accounts[place].leaf()
            alone = height == 0 or (2 * place + 1) << height - 1 >= len(self.accounts)
            self.nodes[height, place] = left if alone else sum_node(height, left, self.node(height - 1, 2 * place + 1))
        return self.nodes[height, place]


def stated_sums(value: Object) -> Sums:  # no liability but max(0, credits - debits) (FORMAT 12)
    debits, credits, liability = (natural(value[name], SUM_LIMIT) for name in SUMS.split())
    good = max(0, credits - debits) <= liability <= credits
    check(good, f"12: no accounts can have these sums: a liability is hidden or made up: {str(value)[:200]}")
    return debits, credits, liability


def verify_balance(document: bytes, keys: list[Key], policy: Policy = ANY) -> Object:
    """A balance proof, up to a checkpoint signed by one of the keys (FORMAT 13, points 1 to 4)."""
    value, trees = parse_json(document, canonical=False), []
    given = value.pop("account", None)
    members("the proof", value, "t position path trees seal proof")
    check(value["t"] == "balance-proof/1", "13: the document is not a balance-proof/1")
    members("account", given, ACCOUNT)
    check(given["status"] in STATUSES and given["entries"], "13: status or entries of the account are impossible")
    account = Account(*(given[name] for name in ACCOUNT.split()[:6]))
    account.status, account.entries, account.last = given["status"], given["entries"], given["last"]
    account.totals = {name: amount(given[name], account.decimals) for name in account.totals}
    for tree in value["trees"]:
        members("a tree", tree, "currency class accounts root " + SUMS)
        named = tree["currency"], tree["class"], tree["accounts"]
        trees.append((*named, bytes.fromhex(tree["root"]), stated_sums(tree)))
    own = [tree for tree in trees if tree[:2] == (account.currency, account.kind)]
    check(len(own) == 1 and all(tree[2] for tree in trees), "13 (2): the account's tree is missing, or one is empty")
    (_, _, size, *top), everybody, place = own[0], sum(tree[2] for tree in trees), value["position"]
    check(place < size and place <= account.ordinal < everybody, "12: position or ordinal is impossible")
    node, way = account.leaf(), list(steps(place, size))
    check(len(way) == len(value["path"]), f"13 (2): the path has {len(value['path'])} nodes, not {len(way)}")
    for (height, sibling_is_left), each in zip(way, value["path"], strict=True):
        members("a node of the path", each, "hash " + SUMS)
        sibling = bytes.fromhex(each["hash"]), stated_sums(each)
        node = sum_node(height, sibling, node) if sibling_is_left else sum_node(height, node, sibling)
    check(node == tuple(top), "13 (2): the path does not lead to root and sums of the account's tree")
    seal, (origin, end, _) = verify_entry(value["proof"], value["seal"].encode("utf-8", "replace"), keys, policy)
    check(seal.get("t") == "seal/1" and seal["index"] == end - 1, "13 (4): it is no seal, or not the last leaf")
    check(state_root(trees).hex() == seal.get("state_root"), "13 (3): the trees do not give the seal's state_root")
    check(account.last < seal["index"], "12: the account's last entry lies behind the seal")
    debits, credits, *_ = account.totals.values()
    balance = debits - credits if account.normal == "debit" else credits - debits
    said = {"origin": origin, "size": end, "time": seal.get("time")}
    said["liability_of_class"] = written(top[1][2], account.decimals)
    said |= {name: given[name] for name in ("account", "currency", "class", "status")}
    return said | {"balance": "-" * (balance < 0) + written(abs(balance), account.decimals)}


# ---- replay (FORMAT 4 to 7): what the entries say, checked against what they add up to
# The currency table that this file knows: H of it (in the genesis), and the currencies in it that do not have 2 decimals.
TABLE = "bb2469306098b1d2b3926991691bf16defe0052dbae7c582927059ad1c239e4f"
NONE, THREE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF", "BHD IQD JOD KWD LYD OMR TND"
UPDATES = {"freeze": ("open", "frozen"), "unfreeze": ("frozen", "open"), "close": ("open", "closed")}
DECIMALS = dict.fromkeys(NONE.split(), 0) | dict.fromkeys(THREE.split(), 3) | {"CLF": 4, "UYW": 4}
COMMON, NOTES, POSTING = "t index time id intent ", "reference metadata ", "account amount currency prev side "
KINDS = {  # members, optional members, totals that the postings state
    "genesis/1": ("t index time ledger currencies", "", ""),
    "account/1": (COMMON + "account class currency limit normal", NOTES + "owner tags", ""),
    "txn/1": (COMMON + "postings tx type", NOTES + "effective reverses", TOTALS),
    "hold/1": (COMMON + "postings", NOTES + "expires", HELD),
    "post/1": (COMMON + "hold postings tx", NOTES + "effective", TOTALS + HELD),
    "void/1": ("t index time id hold postings reason", NOTES + "intent", HELD),
    "account.update/1": (COMMON + "account action prev status", NOTES, ""),
    "policy/1": (COMMON + "policy", NOTES + "currency decimals through", ""),
    "rejected/1": ("t index time id intent_hash code request", "", ""),
    "key/1": (COMMON + "status valid_from_size vkey", "valid_to_size", ""),
    "anchor/1": (COMMON + "hash kind name root size", "", ""),
    "restore/1": (COMMON + "incarnation reason size", "signed_root signed_size", ""),
}
Leg = tuple[str, str, int]  # account, side, minor units


class Replay:  # the state after the entries so far: accounts, open holds, ids, state trees
    def __init__(self) -> None:
        self.origin, self.intent, self.closed, self.decimals = "", "", "", DECIMALS.copy()
        self.accounts: dict[str, Account] = {}
        self.trees: dict[tuple[bytes, bytes], SumTree] = {}
        self.ids: dict[str, str] = {}  # id → hash of the intent that owns it
        self.transactions: list[bytes] = []  # number - 1 → hash of the legs
        self.reversed, self.own = set[int](), list[tuple[int, Object]]()  # own: intents of the ledger itself, by index
        self.holds: dict[str, tuple[int, list[Leg]]] = {}  # the open ones, with the index of the entry
        self.expiries: list[tuple[str, int, str]] = []  # a heap of (time, index, id)

    def apply(self, index: int, kind: str, value: Object) -> None:
        check(kind in KINDS, f"7: {kind[:40]!r} is no kind of entry")
        members("the entry", value, *KINDS[kind][:2])
        check((index == 0) == (kind == "genesis/1"), "7: entry 0 is the genesis, and no other")
        while self.expiries and self.expiries[0][2] not in self.holds:
            heapq.heappop(self.expiries)
        due = self.expiries[0][:2] if self.expiries else ("~", 0)
        expired, legs = kind == "void/1" and value["reason"] == "expired", list[Leg]()
        judged = value.get("intent", self.intent) != self.intent  # else it belongs to the entry before
        self.intent = value.get("intent", "")
        check(not judged or due[0] > value["time"], f"7 (expiry): the hold of entry {due[1]} had to expire first")
        if kind == "genesis/1":
            check(value["currencies"] == TABLE, "7: the genesis names a currency table that is not known here")
            self.origin = value["ledger"]
        elif kind == "rejected/1":
            self.rejected(value)
        else:
            check(expired != ("intent" in value), "7: there is no intent, or one in an expiry")
            check(value["id"] not in self.ids, f"6.1: the id {value['id']!r} was used before")
            self.ids[value["id"]] = value.get("intent", "")
        if kind in ("post/1", "void/1"):
            legs = self.end_hold(index, value, due if expired else None)
        elif kind in ("txn/1", "hold/1"):
            legs = self.postings(index, value)
        if "tx" in value:
            self.transaction(value, legs)
        elif kind == "hold/1":
            self.holds[value["id"]] = index, legs
            if "expires" in value:
                check(value["expires"] > value["time"], "6.1 (146): the hold expires before it begins")
                heapq.heappush(self.expiries, (value["expires"], index, value["id"]))
        elif kind == "account/1":
            self.open(index, value)
        elif kind == "account.update/1":
            self.update(index, value)
        elif kind == "policy/1":
            self.policy(value)
        elif kind in ("key/1", "anchor/1", "restore/1"):
            self.record(index, kind[:-2], value)

    def end_hold(
        self, index: int, value: Object, due: tuple[Any, ...] | None
    ) -> list[Leg]:  # due: it expires by itself
        check(value["hold"] in self.holds, f"6.1 (113): there is no open hold {value['hold'][:140]!r}")
        begun, held = self.holds.pop(value["hold"])
        legs = self.postings(index, value, held)
        check(value["t"] == "post/1" or legs == held, "7: what is released is not what was held")
        check(legs[0][2] <= held[0][2], "6.1 (143): more is posted than was held")
        if due is not None:
            good = (due[1], value["id"]) == (begun, f"~expire:{begun}") and due[0] <= value["time"]
            check(good, "7 (expiry): this hold is not the one that is due")
        return legs

    def update(self, index: int, value: Object) -> None:
        account, after = self.find(value["account"]), value["status"]
        check(value["prev"] == account.last, f"7: prev is {value['prev']}, should be {account.last}")
        debits, credits, *held_back = account.totals.values()
        good = after != "closed" or (debits == credits and not any(held_back))
        good &= UPDATES.get(value["action"]) == (account.status, after)
        check(good, f"6.1 (130 to 133): {account.name!r} is {account.status}, or not empty")
        account.status = after
        self.touch(account, index)

    def policy(self, value: Object) -> None:
        if value["policy"] == "currency":
            new = {"currency", "decimals"} <= value.keys() and value["currency"] not in self.decimals
            check(new, "6.1 (115): the policy lacks its currency, or the currency exists")
            self.decimals[value["currency"]] = value["decimals"]
        else:
            good = value["policy"] == "close_period" and self.closed < value.get("through", "") < value["time"][:10]
            check(good, "6.1 (147): the policy is none, or the period could not be closed")
            self.closed = value["through"]

    def record(self, index: int, kind: str, value: Object) -> None:  # FORMAT 6.2
        added = ("t", "index", "time", "intent")
        own = dict(sorted([("type", kind), *((name, value[name]) for name in value if name not in added)]))
        good = digest(to_json(own)).hex() == value["intent"] and value["id"].startswith(f"~{kind}:")
        if kind == "restore":
            good &= value["incarnation"] == 2 + sum(each["type"] == kind for _, each in self.own)
            good &= value["size"] <= index and ("signed_root" in value) == ("signed_size" in value)
        good &= kind != "key" or value["status"] in ("active", "retiring", "revoked")
        check(good, f"6.2: this cannot be said here, or it is not what intent is the hash of: {own}")
        self.own.append((index, own))

    def rejected(self, value: Object) -> None:
        name, request = value["id"], value["request"]
        intent = digest(to_json(request)).hex()
        check(intent == value["intent_hash"], "4: intent_hash is not the hash of the request")
        check(request.get("id", name) == name, "7: the id is not that of the request")
        if value["code"] == "id_reused":
            check(self.ids.get(name, intent) != intent, f"6.1 (100): no other intent used id {name[:140]!r} before")
        else:
            check(name not in self.ids, f"6.1: the id {name[:140]!r} was used before")
            self.ids[name] = intent

    def find(self, name: str) -> Account:
        check(name in self.accounts, f"6.1 (111): there is no account {name!r}")
        return self.accounts[name]

    def touch(self, account: Account, index: int) -> None:
        account.entries, account.last = account.entries + 1, index
        self.trees[account.currency.encode(), account.kind.encode()].touch(account.place)

    def open(self, index: int, value: Object) -> None:
        name, currency, kind = value["account"], value["currency"], value["class"]
        check(name not in self.accounts, f"6.1 (112): account {name!r} exists")
        tree = self.trees.setdefault((currency.encode(), kind.encode()), SumTree())
        made = Account(name, len(self.accounts), currency, self.decimals.get(currency, 2), kind, value["normal"])
        made.last, made.place, self.accounts[name] = index, len(tree.accounts), made
        rule, given, most = value["limit"].partition(":")
        check(rule == "overdraft" if given else rule in ("none", "no_overdraft"), "5: this is no limit")
        made.overdraft = None if rule == "none" else amount(most, made.decimals) if given else 0
        tree.accounts.append(made)
        tree.touch(made.place)

    def postings(self, index: int, value: Object, held: list[Leg] | None = None) -> list[Leg]:  # held: the hold's
        legs, before, balance = list[Leg](), dict[str, int](), dict[str, int]()
        stated = KINDS[value["t"]][2]
        for number, posting in enumerate(value["postings"]):
            members(what := f"posting {number + 1}", posting, POSTING + stated)
            account, side = self.find(posting["account"]), posting["side"]
            minor, previous = amount(posting["amount"], account.decimals), before.setdefault(account.name, account.last)
            check(posting["currency"] == account.currency, f"6.1 (120): {what}: not the account's currency")
            check(posting["prev"] == previous, f"7: {what}: prev is {posting['prev']}, should be {previous}")
            check(account.status == "open" or value["t"] == "void/1", f"6.1 (130, 131): {what}: {account.status}")
            check(minor > 0, f"6.1 (51): {what}: the amount is zero")
            legs.append((account.name, side, minor))
            check(held is None or (account.name, side) in [leg[:2] for leg in held], f"7: {what}: not of the hold")
            changes = {side + "s": minor} if stated.startswith(TOTALS) else {}
            if stated.endswith(HELD):
                changes["held_" + side + "s"] = -held[0][2] if held else minor
            for total, change in changes.items():
                account.totals[total] += change
                check(account.totals[total] < TOTAL_LIMIT, f"5: {what}: {total} is not below 2^127")
            for total in stated.split():
                right = written(account.totals[total], account.decimals)
                check(posting[total] == right, f"7: {what}: {total} is {posting[total]}, replay gives {right}")
            balance[account.currency] = balance.get(account.currency, 0) + (minor if side == "debit" else -minor)
        check(not any(balance.values()), f"6.1 (122): debits and credits differ, by minor units: {balance}")
        pair = [leg[1] for leg in legs] == ["debit", "credit"] and legs[0][0] != legs[1][0]
        free = value.get("type") in ("transaction", "reversal", "opening") and 2 <= len(legs) <= 200
        check(pair or free, "7: the postings are not a debit and a credit of two accounts")
        for name, side, _ in legs if held is None else ():
            account, (debits, credits, *held_back) = self.accounts[name], self.accounts[name].totals.values()
            rest = debits - credits - held_back[1] if account.normal == "debit" else credits - debits - held_back[0]
            good = side == account.normal or account.overdraft is None or rest >= -account.overdraft
            check(good, f"6.1 (150): account {name!r} ends below its limit")
        dated = "tx" in value and value.get("type") != "opening"
        check(not dated or value.get("effective", value["time"][:10]) > self.closed, "6.1 (145): the period is closed")
        for name in before:
            self.touch(self.accounts[name], index)
        return legs

    def transaction(self, value: Object, legs: list[Leg]) -> None:
        right, old, kind = len(self.transactions) + 1, value.get("reverses", 0), value.get("type")
        check(value["tx"] == right, f"7: this is transaction {right}, not {value['tx']}")
        check((kind == "reversal") == ("reverses" in value), "7: reverses stands in reversals, and only there")
        self.transactions.append(digest(repr(legs).encode()))
        if kind == "reversal":
            check(0 < old < right and old not in self.reversed, f"6.1 (144): transaction {old} cannot be reversed")
            exchanged = [(name, "credit" if side == "debit" else "debit", minor) for name, side, minor in legs]
            reason = f"7: the postings are not those of transaction {old} with sides exchanged"
            check(digest(repr(exchanged).encode()) == self.transactions[old - 1], reason)
            self.reversed.add(old)

    def state(self) -> bytes:
        trees = [(*pair, tree, len(tree.accounts)) for pair, tree in sorted(self.trees.items())]
        return state_root([(a.decode(), b.decode(), n, *tree.node((n - 1).bit_length(), 0)) for a, b, tree, n in trees])


# ---- the log (FORMAT 3): entries, batches, seals, stored hashes
class Audit:  # takes the entries one after the other. `points`: the signed trees that must be met, with their files, by size
    def __init__(self, source: Source, points: list[tuple[str, Checkpoint]], keys: list[Key], quiet: bool) -> None:
        self.source, self.points, self.keys, self.replay = source, points, [key[3] for key in keys], Replay()
        self.show = not quiet and sys.stderr.isatty()
        self.log, self.batch, self.first, self.blocks, self.state_roots = Frontier(), Frontier(), 0, 0, 0
        self.time, self.policy, self.prev = "", b"", bytes(32)
        self.met = {size: b"" for _, (_, size, _) in points}  # size of a signed tree → our root, if a seal ends it
        self.tiles: dict[int, tuple[int, bytes, str]] = {}  # level → the one in use: number, hashes, file
        self.suspect: tuple[str, int] | None = None  # file and index of the first stored hash that is wrong

    def run(self) -> Object:
        try:
            for data in self.source.entries():
                self.entry(data)
                if self.show and self.log.size % 8192 == 0:
                    print(f"\r{100 * self.source.done // self.source.total} % ", end="", file=sys.stderr, flush=True)
            return self.finish()
        except Fault as fault:
            if not fault.file:
                fault.file, fault.entry = self.source.file, self.suspect[1] if self.suspect else self.log.size
            raise

    def entry(self, data: bytes) -> None:
        value, index, leaf = parse_json(data), self.log.size, digest(b"\x00", data)
        kind, when = value.get("t"), value.get("time")
        check(type(value.get("index")) is int and value["index"] == index, "4: the entry does not say its index")
        check(type(kind) is str and TIME.fullmatch(str(when)), "4: the entry has no kind or no time")
        check(str(when) > self.time, f"4: time {when} is not later than {self.time}")
        self.time, sealed = str(when), kind == "seal/1"
        if sealed:
            self.seal(index, value)
        else:
            self.replay.apply(index, str(kind), value)
            self.batch.push(leaf)
        for level, node in self.log.push(leaf):
            number, at = divmod((index + 1 >> 8 * level) - 1, 256)
            if level not in self.tiles or self.tiles[level][0] != number:
                self.tiles[level] = number, *self.source.tile(level, number)
            _, tile, file = self.tiles[level]
            if file and tile[32 * at : 32 * at + 32] != node and self.suspect is None:
                self.suspect = file, index
        if kind in ("genesis/1", "policy/1"):
            self.policy = leaf
        if sealed:
            self.prev, self.first, self.batch, self.blocks = leaf, index + 1, Frontier(), self.blocks + 1
            if index + 1 in self.met:
                self.met[index + 1] = self.log.root()
            if self.suspect:  # the entries are those that were sealed, so it is the hash that is wrong
                raise Fault("1 (hashes): a stored hash is not that of the entries", *self.suspect)

    def seal(self, index: int, value: Object) -> None:
        right: Object = {"first": self.first, "count": index - self.first, "height": self.blocks + 1}
        right |= {"tx_root": self.batch.root().hex(), "log_root": self.log.root().hex()}
        right |= {"prev": self.prev.hex(), "policy": self.policy.hex()}
        if "state_root" in value:
            right["state_root"], self.state_roots = self.replay.state().hex(), self.state_roots + 1
        check(value.keys() == {*right, "t", "index", "time"}, "3, 7: the seal lacks a member, or has one too many")
        for name, wanted in right.items():
            if type(value.get(name)) is not type(wanted) or value[name] != wanted:
                entry = self.suspect[1] if self.suspect and name in ("tx_root", "log_root") else index
                reason = f"3, 7, 12: {name} of seal {index} is not {wanted}: altered, or an entry since {self.first}"
                raise Fault(reason, self.source.file, entry)

    def finish(self) -> Object:
        size, replay = self.log.size, self.replay
        check(self.first == size > 0, f"3: an unfinished batch (from entry {self.first}) stands behind the last seal")
        self.source.finish(size)
        said = [{name: own[name] for name in own.keys() - {"id", "type"}} for _, own in replay.own if "vkey" in own]
        wrong = [key for key in self.keys if said and "status" in key and key not in said]
        check(not wrong, f"13: the log does not say of these keys what the trusted root says: {wrong}")
        for file, (origin, signed, root) in self.points:
            if (origin, root) != (replay.origin, self.met[signed]):
                what = "the end is missing" if signed > size else "history was rewritten"
                for at, own in replay.own:
                    if own["type"] == "restore" and own["size"] < signed <= own.get("signed_size", signed):
                        what = f"lost in the restore at entry {at}"
                reason = f"13: {what}: {origin} signed {signed} entries, and the {size} here do not begin with them"
                raise Fault(reason, file, min(size, signed - 1))
        found = {"origin": replay.origin, "entries": size, "root": self.log.root().hex(), "blocks": self.blocks}
        found |= {"transactions": len(replay.transactions), "accounts": len(replay.accounts)}
        return found | {"state_roots": self.state_roots, "signed_trees": len(self.points)}


# ---- files
def tile_path(number: int) -> str:  # C2SP tlog-tiles: groups of three digits, all but the last with an x
    *groups, last = [int(each) for each in f"{number:,}".split(",")]
    return "".join(f"x{each:03}/" for each in groups) + f"{last:03}"


class Source:  # journal/*.seg of a store that nobody writes, and hashes/ if it is there (FORMAT 1 and 3); or log/tile/ of a mount (11)
    def __init__(self, root: Path, mounted: bool) -> None:
        self.root, self.mounted, self.file, self.done, self.size, number = root, mounted, "", 0, 0, 0
        if mounted:
            entries = "log/tile/entries/"
            while (root / entries / tile_path(number)).is_file():
                number += 1
            part = entries + tile_path(number) + ".p"
            width = max(map(int, os.listdir(root / part))) if not number or (root / part).is_dir() else 0
            self.files = [entries + tile_path(each) for each in range(number)] + [f"{part}/{width}"] * (width > 0)
            self.size = 256 * number + width
        else:
            self.files = [f"journal/{name}" for name in sorted(os.listdir(root / "journal")) if name[0] != "."]
        self.total = sum((root / name).stat().st_size for name in self.files)

    def entries(self) -> Iterator[bytes]:  # u16 length, then the entry
        index = 0
        for name in self.files:
            self.file, last = name, name == self.files[-1]
            good = index & 255 == 0 and (self.mounted or name == f"journal/{index:020}.seg")
            check(good, f"3, 11: this cannot follow {index} entries: something is missing, doubled or strange")
            with open(self.root / name, "rb") as file:
                while (head := file.read(2)).strip(b"\0"):
                    data = file.read(int.from_bytes(head, "big"))
                    check([len(head), len(data)] == [2, int.from_bytes(head, "big")], "3: it ends inside an entry")
                    yield data
                    index, self.done = index + 1, self.done + 2 + len(data)
                check(not head or (last and not self.mounted), "3: zeros stand where another entry should follow")
                while head := file.read(1 << 20):
                    check(not head.strip(b"\0"), "3: something stands behind the end of the journal")
        check(not self.mounted or index == self.size, f"11: the bundles hold {index} entries, not {self.size}")

    def tile(self, level: int, number: int) -> tuple[bytes, str]:  # 256 hashes, and the file, if it is stored
        name, width = f"hashes/{level}", 256
        if self.mounted:
            width = min(256, (self.size >> 8 * level) - 256 * number)
            name = f"log/tile/{level}/{tile_path(number)}" + f".p/{width}" * (width < 256)
        elif not (self.root / name).exists():
            return b"", ""
        with open(self.root / name, "rb") as file:
            file.seek(0 if self.mounted else 8192 * number)
            data = file.read(8193 if self.mounted else 8192)
        if self.mounted and len(data) != 32 * width:
            raise Fault(f"11: the tile does not hold {width} hashes", name, 256 * number << 8 * level)
        return data, name

    def finish(self, size: int) -> None:
        for path in (self.root / "hashes").glob("*"):
            have, right = path.stat().st_size, 32 * (size >> 8 * int(path.name)) if path.name.isdecimal() else -1
            if have != right:
                raise Fault(f"1: {have} bytes, the journal gives {right}", f"hashes/{path.name}", size)


# ---- the command line
FILES = {"checkpoint": "checkpoint", "tx": "proof entry", "balance": "proof", "consistency": "old new proof"}


def note_in(path: Path) -> str:  # a checkpoint; with the lines of witnesses beside it, in a digest (FORMAT 15)
    more = sorted(path.parent.glob("*.cosig")) if path.name == "checkpoint" else []
    return str(b"".join(each.read_bytes() for each in [path, *more]), "utf-8")


def run(options: argparse.Namespace, keys: list[Key], policy: Policy) -> Object:
    if options.command == "checkpoint":
        note = note_in(options.checkpoint)
        origin, size, root = verify_checkpoint(note, keys, policy)
        cosigned = policy.check(note)
        return {"origin": origin, "size": size, "root": root.hex()} | ({"cosigned": cosigned} if cosigned else {})
    if options.command == "tx":
        proof = str(options.proof.read_bytes(), "utf-8")
        value, (origin, size, _) = verify_entry(proof, options.entry.read_bytes(), keys, policy)
        said = {name: value[name] for name in ("t", "index", "tx", "id", "time") if name in value}
        return {"origin": origin, "size": size} | said
    if options.command == "balance":
        return verify_balance(options.proof.read_bytes(), keys, policy)
    if options.command == "consistency":
        old, new = (verify_checkpoint(note_in(path), keys, policy) for path in (options.old, options.new))
        check(old[0] == new[0], "C2SP tlog-checkpoint: the checkpoints are of two ledgers")
        *lines, end = str(options.proof.read_bytes(), "utf-8").split("\n")
        check(end == "", "13: the proof does not end with a newline")
        verify_consistency(old[1], new[1], old[2], new[2], [unbase64(line, 32) for line in lines])
        return {"origin": new[0], "old": old[1], "new": new[1]}
    points = []
    for path in [file for at in options.points for file in (at.is_dir() and sorted(at.rglob("*checkpoint"))) or [at]]:
        try:
            points.append((str(path), verify_checkpoint(note_in(path), keys, policy)))
        except Fault as fault:
            raise Fault(fault.reason, str(path)) from None
    return Audit(Source(options.directory, options.command == "mount"), points, keys, options.quiet).run()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in [*FILES, "store", "mount"]:
        command = commands.add_parser(name)
        for file in FILES.get(name, "directory").split():
            command.add_argument(file, type=Path)
        if name not in FILES:
            command.add_argument("--checkpoint", "--anchor", dest="points", type=Path, action="append", default=[])
        command.add_argument("--key", action="append", default=[])
        command.add_argument("--policy", type=Path)
        command.add_argument("--json", action="store_true")
        command.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    signed = options.command in FILES or options.points
    if signed and not options.key and not options.policy:
        parser.error("signed trees need --key, or a --policy that names logs")
    if options.policy and not signed:
        parser.error("--policy is about signed trees: give --checkpoint or --anchor")
    found: Object = {"verified": False}
    try:
        texts = [str(Path(key).read_bytes(), "utf-8") if os.path.isfile(key) else key for key in options.key]
        keys = [key for text in texts for key in read_keys(text)]
        policy = Policy(options.policy.read_bytes()) if options.policy else ANY
        check(keys or policy.logs or not signed, "14: no --key is given, and the policy names no log")
        found, code = {"verified": True} | run(options, keys or policy.logs, policy), 0
    except Fault as fault:
        found, code = found | {"file": fault.file, "entry": fault.entry, "reason": fault.reason}, 1
    except OSError as error:
        found, code = found | {"file": str(error.filename), "reason": f"cannot be read: {error.strerror}"}, 3
    except Exception as error:  # whatever else bad input causes: it is not verified, and there is no traceback
        found, code = found | {"reason": f"{type(error).__name__}: {error}"[:400]}, 1
    text = ", ".join(f"{name}: {value}" for name, value in found.items() if value not in (None, ""))
    print(json.dumps(found) if options.json else text, file=sys.stderr if code and not options.json else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
