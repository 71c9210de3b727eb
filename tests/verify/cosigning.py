"""Checkpoints and witness policies with what is right about each: what the tests of all three verifiers share (FORMAT 14)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.verify.support import ORIGIN, Signer, balance_proof, sha
from tests.verify.test_balance import accounts, sibling_with

TIME = 1_790_000_000
LOG = Signer()
BODY = f"{ORIGIN}\n7\n{base64.b64encode(sha(b'root')).decode()}\n"


class Cosigner:
    """The key of a witness, made from the specification alone."""

    def __init__(self, name: str, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.name = name
        public = b"\x04" + self._key.public_key().public_bytes_raw()
        self.id = sha(name.encode(), b"\n", public)[:4]
        self.vkey = f"{name}+{self.id.hex()}+{base64.b64encode(public).decode()}"

    def data(self, body: str = BODY, time: int = TIME, shown: int | None = None) -> bytes:
        """Time and signature; ``shown``: another time than the one that is signed."""
        signature = self._key.sign(f"cosignature/v1\ntime {time}\n{body}".encode())
        return (time if shown is None else shown).to_bytes(8, "big") + signature

    def line(self, body: str = BODY, time: int = TIME, shown: int | None = None) -> str:
        return self.of(self.data(body, time, shown))

    def of(self, data: bytes) -> str:
        return f"\u2014 {self.name} {base64.b64encode(self.id + data).decode()}\n"


W = [Cosigner(f"witness-{number}.example/w", 10 + number) for number in range(5)]
NAMES = "abcde"
DEFINED = "".join(f"witness {name} {witness.vkey}\n" for name, witness in zip(NAMES, W, strict=True))
TWO_OF_THREE = f"log {LOG.vkey}\n{DEFINED}group g 2 a b c\nquorum g\n"
NESTED = f"{DEFINED}group x 2 a b c\n\n# a comment\n \t group y any d e\t\ngroup all-of all x y\nquorum all-of\n"


class Case(NamedTuple):
    """One judgement. Without ``good`` every verifier must refuse."""

    name: str
    policy: bytes
    note: str
    good: bool


def note(*lines: str, body: str = BODY, log: Signer = LOG) -> str:
    return log.sign(body) + "".join(lines)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def cosigned_cases() -> Iterator[tuple[str, str, str, bool]]:
    a, b, c, d, _ = (each.line() for each in W)
    yield "two of three", TWO_OF_THREE, note(a, b), True
    yield "the other two of three", TWO_OF_THREE, note(c, a), True
    yield "all", TWO_OF_THREE, note(a, b, c), True
    yield "nobody", TWO_OF_THREE, note(), False
    yield "too few", TWO_OF_THREE, note(a), False
    yield "one of another group", TWO_OF_THREE, note(a, d), False
    yield "a witness twice counts once", TWO_OF_THREE, note(a, a), False
    yield "a witness twice, at two times", TWO_OF_THREE, note(a, W[0].line(time=TIME + 5)), False
    yield "a witness twice, and another", TWO_OF_THREE, note(a, W[0].line(time=TIME + 5), b), True
    yield "a second cosignature of a witness is wrong", TWO_OF_THREE, note(a, b, W[0].line(shown=TIME + 5)), False
    yield "the key of another", TWO_OF_THREE, note(a, W[1].of(W[3].data())), False
    yield "an unknown witness is passed over", TWO_OF_THREE, note(a, Cosigner("x.example", 99).line(), b), True
    yield "another id of a known name is passed over", TWO_OF_THREE, note(a, b, Cosigner(W[2].name, 98).line()), True
    yield "another time than was signed", TWO_OF_THREE, note(a, b, W[2].line(shown=TIME + 1)), False
    yield "time 0", TWO_OF_THREE, note(a, W[1].line(time=0)), False
    yield "time 0 beyond the quorum", TWO_OF_THREE, note(a, b, W[2].line(time=0)), False
    yield "the last time that there is", TWO_OF_THREE, note(a, W[1].line(time=2**63 - 1)), True
    yield "time 2^63", TWO_OF_THREE, note(a, W[1].line(time=2**63)), False
    yield "a plain signature is no cosignature", TWO_OF_THREE, note(a, W[1].of(W[1].data()[8:])), False
    yield "only a time", TWO_OF_THREE, note(a, W[1].of(W[1].data()[:8])), False
    yield "half a time", TWO_OF_THREE, note(a, W[1].of(W[1].data()[:3])), False
    yield "a byte too many", TWO_OF_THREE, note(a, W[1].of(W[1].data() + b"\0")), False
    yield "of another size", TWO_OF_THREE, note(a, W[1].line(BODY.replace("\n7\n", "\n8\n"))), False
    yield "of another log", TWO_OF_THREE, note(a, W[1].line(BODY.replace("ledger", "Ledger"))), False
    for at in range(72):
        yield f"bit {at * 8} flipped", TWO_OF_THREE, note(a, b, W[2].of(flipped(W[2].data(), at))), False
    yield "a log that the policy does not name", TWO_OF_THREE, note(a, b, log=Signer(seed=7)), False
    yield "no log is named", TWO_OF_THREE.split("\n", 1)[1], note(a, b), True
    yield "groups of groups", NESTED, note(a, c, d), True
    yield "groups of groups, one too few", NESTED, note(a, b, c), False
    yield "groups of groups, the other too few", NESTED, note(a, d), False
    yield "no witness wanted", f"log {LOG.vkey}\nquorum none\n", note(), True
    yield "no witness wanted, but one is wrong", f"{DEFINED}quorum none\n", note(W[0].line(shown=1)), False
    yield "a single witness", f"{DEFINED}quorum d\n", note(d), True
    yield "a single witness that is absent", f"{DEFINED}quorum d\n", note(a, b, c), False
    other = Signer("ledger.example/other", seed=5)
    yield "several logs", f"log {other.vkey}\n{TWO_OF_THREE}", note(a, b), True
    yield "only another log", f"log {other.vkey}\n{DEFINED}quorum a\n", note(a), False
    yield "bad base64 of an unknown witness", TWO_OF_THREE, note(a, b, "\u2014 x.example AAA\n"), False


def policies() -> Iterator[tuple[str, str | bytes, bool]]:
    """Texts that are, and are not, policies; where they are, a and b satisfy them."""
    first, key = f"witness a {W[0].vkey}\n", W[0].vkey
    yield "urls", f"log {LOG.vkey} http://x.example\nwitness a {key} http://y.example/\nquorum a\n", True
    yield "tabs, spaces, empty lines", f"\n \t\n\t witness\t a  {key} \t\n quorum   a\n", True
    yield "names are octets", f"witness \u00e4 {key}\nquorum \u00e4\n", True
    yield "octets that are not UTF-8", b"witness \xff\x80 " + key.encode() + b"\nquorum \xff\x80\n# \xc3\x28\n", True
    yield "names that look like words", f"witness any {key}\ngroup group all any\nquorum group\n", True
    yield "two names that only look the same", f"witness K {key}\nquorum \u212a\n", False
    yield "empty", "", False
    yield "no quorum", first, False
    yield "two quorums", f"{first}quorum a\nquorum a\n", False
    yield "a quorum of two", f"{DEFINED}quorum a b\n", False
    yield "a quorum that is not defined", f"{first}quorum b\n", False
    yield "a quorum before its witness", f"quorum a\n{first}", False
    yield "cut short", f"{DEFINED}group ab 1 a b\nquorum ab", False
    yield "carriage returns", f"{first}quorum a\r\n", False
    yield "a control character in a comment", f"{first}#\x01\nquorum a\n", False
    yield "delete", f"{first}#\x7f\nquorum a\n", False
    yield "an unknown word", f"{first}quorum a\nmonitor x\n", False
    yield "a name twice", f"{first}witness a {W[1].vkey}\nquorum a\n", False
    yield "a group with the name of a witness", f"{DEFINED}group a any b\nquorum a\n", False
    yield "a witness called none", f"witness none {key}\nquorum none\n", False
    yield "a key twice", f"{first}witness b {key}\nquorum a\n", False
    renamed = Cosigner("another.example", 10)
    yield "a key twice under two names", f"{first}witness b {renamed.vkey}\nquorum a\n", False
    yield "a log twice", f"log {LOG.vkey}\nlog {LOG.vkey}\n{first}quorum a\n", False
    yield "a log with the key of a witness", f"log {key}\n{first}quorum a\n", False
    yield "a witness with the key of a log", f"witness a {LOG.vkey}\nquorum a\n", False
    yield "a wrong id", f"witness a {key.replace('+', '+0', 1)}\nquorum a\n", False
    yield "a key that is cut short", f"witness a {key[:-4]}\nquorum a\n", False
    yield "a key that is not UTF-8", b"witness a \xff" + key.encode() + b"\nquorum a\n", False
    yield "no key", "witness a\nquorum a\n", False
    yield "a word too many", f"witness a {key} u v\nquorum a\n", False
    yield "a log without key", f"log\n{first}quorum a\n", False
    yield "a log with a word too many", f"log {LOG.vkey} u v\n{first}quorum a\n", False
    for k, good in {
        "1": True,
        "2": True,
        "any": True,
        "all": True,
        "0": False,
        "3": False,
        "02": False,
        "+1": False,
    }.items():
        yield f"a group of {k}", f"{DEFINED}group g {k} a b\nquorum g\n", good
    for k in ("-1", "1.0", "1e0", "x", "9" * 30, "\u00b2", "ANY"):
        yield f"no group of {k}", f"{DEFINED}group g {k} a b\nquorum g\n", False
    yield "a group of nobody", f"{DEFINED}group g all\nquorum a\n", False
    yield "a member twice", f"{DEFINED}group g any a a\nquorum g\n", False
    yield "a member of two groups", f"{DEFINED}group g any a b\ngroup h any b c\nquorum g\n", False
    yield "a member that is not defined", f"{DEFINED}group g any a z\nquorum g\n", False
    yield "a group of itself", f"{DEFINED}group g any a g\nquorum g\n", False
    yield "none as a member", f"{DEFINED}group g any a none\nquorum g\n", False
    many = "".join(f"group g{n} all {NAMES[0] if n == 0 else f'g{n - 1}'}\n" for n in range(2000))
    yield "two thousand groups, each of the one before", f"{DEFINED}{many}quorum g1999\n", True
    yield "thirty-two logs", "".join(f"log {Signer(seed=n).vkey}\n" for n in range(1, 33)) + f"{first}quorum a\n", True


def cases() -> list[Case]:
    found = [Case(name, policy.encode(), text, good) for name, policy, text, good in cosigned_cases()]
    text = note(W[0].line(), W[1].line())
    for name, policy, good in policies():
        found.append(Case(name, policy if isinstance(policy, bytes) else policy.encode(), text, good))
    assert len({case.name for case in found}) == len(found)
    return found


def liability_proofs() -> Iterator[tuple[str, str, bool]]:
    """Balance proofs of an operator with the key, each cosigned by a quorum: the first is honest, the others hide a liability."""
    everybody, unbalanced, large = accounts(), accounts(), accounts()
    unbalanced[1]["credits"] += 1
    large[0]["credits"] += 2**127
    next(each for each in large if each["account"] == "EUR-bank")["debits"] += 2**127
    for name, proof in (
        ("honest", balance_proof(LOG, everybody, "EUR-6")),
        ("a sibling owes nothing", balance_proof(LOG, everybody, "EUR-6", sibling_with(liability=0))),
        (
            "a sibling is left out",
            balance_proof(LOG, everybody, "EUR-6", sibling_with(credits=0, liability=0, debits=0)),
        ),
        ("more was credited than debited", balance_proof(LOG, unbalanced, "EUR-0")),
        ("an account beyond 2^127", balance_proof(LOG, large, "EUR-0")),
    ):
        yield name, cosigned_proof(proof), name == "honest"
    for what, name, change in (
        ("an ordinal behind all accounts", "EUR-6", {"ordinal": 10**6}),
        ("an ordinal below its position", "EUR-6", {"ordinal": 5}),
        ("nineteen decimals", "EUR-6", {"decimals": 19}),
        ("an account without entries", "EUR-6", {"entries": 0}),
        ("a last entry behind the seal", "EUR-6", {"last": 6}),
        ("a name that cannot be", "a b", {"account": "a b"}),
    ):
        forged = accounts()
        forged[6] |= change
        yield what, cosigned_proof(balance_proof(LOG, forged, name)), False
    yield "a seal that says another index", cosigned_proof(balance_proof(LOG, everybody, "EUR-6", says=5)), False
    for bad in ("-1", "-0", str(2**192), "1e3"):
        for place in ("path", "trees"):
            proof = balance_proof(LOG, everybody, "EUR-6")
            proof[place][0]["liability"] = bad
            yield f"a liability of {bad} in {place}", cosigned_proof(proof), False


def cosigned_proof(proof: dict[str, Any]) -> str:
    """The proof, with two cosignatures on its checkpoint."""
    body = proof["proof"].partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
    return json.dumps(proof | {"proof": proof["proof"] + W[0].line(body) + W[1].line(body)})
