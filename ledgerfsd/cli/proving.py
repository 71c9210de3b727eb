"""``prove``: fetch a proof from the mount, or take one from a file, and verify it step by step."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json
from ledgerfsd.clock import NS_PER_SECOND, format_time
from ledgerfsd.core.hashing import leaf_hashes
from ledgerfsd.core.json import is_canonical
from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import balance_proof, checkpoint, note, tlog_proof
from ledgerfsd.merkle.proof import ProofError, verify_consistency, verify_inclusion
from ledgerfsd.money import format_amount, format_signed
from ledgerfsd.service.keys import KIND, Key, TrustedRoot, parse_trusted_root

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.core.pure.state_tree import Total
    from ledgerfsd.merkle.checkpoint import Checkpoint
    from ledgerfsd.types import Account

PROVE_TEXT: Final = """\
Prove that a transaction is in the signed log, what an account has, what all accounts of a class have together, or that
one checkpoint is the continuation of another. The proof is read from the mount, verified here, and every step is shown.
-o keeps it; --check verifies one that was kept, without a mount.

  tx NUMBER              transaction 42, or tx_0042. With --check, --entry gives its file, as it was in transactions/
  balance ACCOUNT        what the account has, as of the newest state
  sum CURRENCY           what is owed to customers in a currency, what is there to cover it, and all other totals; from
                         the proof of any account
  consistency OLD [NEW]  OLD and NEW are files that hold checkpoints, kept from log/checkpoint; without NEW, the mount's

Whom to believe is said by --trusted-root (the ledger's trusted_root.json, from a source that you trust), --vkey (a
public key) or the logs of a --policy. Without them the mount's own word is taken, which shows that all fits together, but not who signed.

With --policy the checkpoint must also be cosigned by a quorum of witnesses (`ledgerfs witness` says how to get there), so
that nobody is shown another history than you; a policy that names logs says whom to believe, too.

Ends with 0 when the proof holds and with 4 when it does not.

examples:
  ledgerfs prove tx 42 --trusted-root trusted_root.json -o tx_0042.tlog-proof
  ledgerfs prove tx 42 --check tx_0042.tlog-proof --entry tx_0042.json --trusted-root trusted_root.json
  ledgerfs prove balance acc_001 --trusted-root trusted_root.json
  ledgerfs prove sum EUR --trusted-root trusted_root.json
  ledgerfs prove sum EUR --check sum.json --policy policy.txt
  ledgerfs prove consistency checkpoint.monday --trusted-root trusted_root.json
"""
TX: Final = re.compile(r"(?:tx_)?0*([1-9][0-9]{0,18})")


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    prove = commands.add_parser("prove", help="fetch and verify proofs", description=PROVE_TEXT)
    prove.add_argument("what", choices=["tx", "balance", "sum", "consistency"], help="what to prove")
    prove.add_argument(
        "names", metavar="NAME", nargs="+", help="a transaction, account or currency; files of checkpoints"
    )
    prove.add_argument("--mount", metavar="DIR", help="the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    prove.add_argument("--trusted-root", metavar="FILE", type=Path, help="trusted_root.json of the ledger")
    prove.add_argument("--vkey", metavar="KEY", action="append", help="a public key to believe (may be repeated)")
    prove.add_argument("--policy", metavar="FILE", type=Path, help="a witness policy whose quorum must have cosigned")
    prove.add_argument("--check", metavar="FILE", type=Path, help="verify this proof instead of the mount's")
    prove.add_argument("--entry", metavar="FILE", type=Path, help="tx with --check: the transaction's file")
    prove.add_argument("-o", "--output", metavar="FILE", type=Path, help="keep the proof in this file")
    prove.set_defaults(run=run_prove)


class Report:
    """The steps taken so far."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._steps: list[str] = []

    def step(self, text: str) -> None:
        """One that held."""
        self._steps.append(text)
        if not self._as_json:
            print(f"ok  {text}")

    def finish(self, **found: Any) -> int:
        """All held."""
        if self._as_json:
            print_json({"holds": True, **found, "steps": self._steps})
        return 0


def run_prove(options: argparse.Namespace) -> int:
    """Verify a proof."""
    if options.trusted_root and options.vkey:
        raise LedgerError("--trusted-root and --vkey: give one of them")
    report = Report(as_json=options.json)
    steps = {"tx": _transaction, "balance": _balance, "sum": _sum, "consistency": _consistency}
    return steps[options.what](options, report)


def _transaction(options: argparse.Namespace, report: Report) -> int:
    match = TX.fullmatch(options.names[0])
    if match is None or len(options.names) != 1:
        raise LedgerError(
            f"{' '.join(options.names)!r} is no transaction", hint="give one number, such as 42 or tx_0042"
        )
    name = f"tx_{int(match[1]):04}"
    if bool(options.check) != bool(options.entry):
        raise LedgerError("--check and --entry go together", hint="the proof of a transaction is about its bytes")
    if options.check:
        entry, data = options.entry.read_bytes(), options.check.read_bytes()
    else:
        mount = places.mounted(options.mount)
        data = _from(mount / "proofs" / f"{name}.tlog-proof", f"there is no transaction {name}")
        entry = (mount / "transactions" / f"{name}.json").read_bytes()
    proof = tlog_proof.parse(data)
    report.step(f"the proof of {name} is well-formed: entry {proof.index}, {len(proof.hashes)} hashes")
    head = _checkpoint(proof.checkpoint, options, report)
    leaf = leaf_hashes([entry])
    report.step(f"the leaf hash of its {len(entry)} bytes is {leaf.hex()}")
    verify_inclusion(proof.index, head.size, leaf, proof.hashes, head.root)
    report.step(f"it leads as entry {proof.index} to the signed root of {head.size} entries")
    # What is proven is that these bytes are in the log; that they are this transaction they say themselves.
    if _stated(entry, "tx") != int(match[1]):
        raise LedgerError(f"the entry is not transaction {name}")
    if _stated(entry, "index") != proof.index or not is_canonical(entry):
        raise ProofError(f"the bytes do not say that they are entry {proof.index}")
    _keep(data, options, report)
    return report.finish(tx=int(match[1]), index=proof.index, size=head.size, root=head.root.hex(), leaf=leaf.hex())


def _balance(options: argparse.Namespace, report: Report) -> int:
    (name,) = _one(options, "account")
    account, _ = _proven(options, report, name)
    if account.name != name:
        raise LedgerError(f"the proof is of {account.name}, not of {name}")
    totals = {
        side: format_amount(getattr(account, side), account.decimals)
        for side in ("debits", "credits", "held_debits", "held_credits")
    }
    net = account.debits - account.credits if account.normal == "debit" else account.credits - account.debits
    balance = format_signed(net, account.decimals)
    report.step(f"{name} ({account.account_class}, {account.status}) has a balance of {balance} {account.currency}")
    return report.finish(account=name, currency=account.currency, balance=balance, **totals)


def _sum(options: argparse.Namespace, report: Report) -> int:
    (currency,) = _one(options, "currency")
    account, totals = _proven(options, report, None)
    if account.currency != currency:
        raise LedgerError(
            f"the proof is of an account in {account.currency}", hint=f"--check the proof of an account in {currency}"
        )
    lines = []
    for tree in totals:
        if tree.currency == currency:
            sums = {name: format_amount(value, account.decimals) for name, value in tree.sums._asdict().items()}
            lines.append({"class": tree.account_class, "accounts": tree.accounts, **sums})
            text = ", ".join(f"{name} {value}" for name, value in sums.items())
            report.step(f"{tree.account_class}: {tree.accounts} accounts, {text} {currency}")
    owed = sum(tree.sums.liability for tree in totals if _is(tree, currency, "customer_liability"))
    there = sum(tree.sums.debits - tree.sums.credits for tree in totals if _is(tree, currency, "safeguarding_asset"))
    short = format_signed(there - owed, account.decimals)
    report.step(
        f"owed to customers: {format_amount(owed, account.decimals)}; safeguarded: "
        f"{format_signed(there, account.decimals)}; difference: {short} {currency}"
    )
    return report.finish(currency=currency, owed=format_amount(owed, account.decimals), difference=short, classes=lines)


def _is(tree: Total, currency: str, account_class: str) -> bool:
    return tree.currency == currency and tree.account_class == account_class


def _one(options: argparse.Namespace, what: str) -> list[str]:
    if len(options.names) != 1 or options.entry:
        raise LedgerError(f"give one {what}")
    return list(options.names)


def _proven(options: argparse.Namespace, report: Report, name: str | None) -> tuple[Account, list[Total]]:
    """The account and the totals that a balance proof proves; without a name that of some account of the currency."""
    if options.check:
        data = options.check.read_bytes()
    else:
        mount = places.mounted(options.mount)
        name = name or _some_account(mount, options.names[0])
        data = _from(mount / "accounts" / name / "proof.json", f"there is no account {name}")
    signed = tlog_proof.parse(balance_proof.tlog_proof_in(data)).checkpoint
    root, _ = _trusted(options, signed)
    proven = balance_proof.verify(data, root.ledger, [key.verifier for key in root.keys])
    _checkpoint(signed, options, report)
    report.step("its last entry is the seal that carries the state root, so this is the state of that moment")
    report.step(f"the {len(proven.totals)} trees have that state root, and debits equal credits in every currency")
    report.step(f"the leaf of {proven.account.name} leads to the root and the sums of its tree")
    _keep(data, options, report)
    return proven.account, proven.totals


def _some_account(mount: Path, currency: str) -> str:
    for path in (mount / "accounts").iterdir():
        if json.loads((path / "balance.json").read_bytes())["currency"] == currency:
            return path.name
    raise LedgerError(f"there is no account in {currency}")


def _consistency(options: argparse.Namespace, report: Report) -> int:
    if len(options.names) > 2 or options.entry:
        raise LedgerError("consistency takes one or two files of checkpoints")
    old = _checkpoint(Path(options.names[0]).read_bytes(), options, report)
    if len(options.names) == 2:
        new_data = Path(options.names[1]).read_bytes()
    else:
        new_data = (places.mounted(options.mount) / "log" / "checkpoint").read_bytes()
    new = _checkpoint(new_data, options, report)
    if old.size > new.size:
        raise LedgerError(
            f"the first checkpoint is of size {old.size}, the second of {new.size}", hint="turn them round"
        )
    if options.check:
        data = options.check.read_bytes()
    else:
        path = places.mounted(options.mount) / "proofs" / "consistency" / f"{old.size}-{new.size}"
        data = _from(path, f"{old.size} and {new.size} are not both sizes at which the log was sealed")
    hashes = tlog_proof.parse_hashes(data)
    report.step(f"the proof is well-formed: {len(hashes)} hashes")
    verify_consistency(old.size, new.size, old.root, new.root, hashes)
    report.step(f"the log of {new.size} entries begins with the log of {old.size} entries: nothing was changed")
    _keep(data, options, report)
    return report.finish(old_size=old.size, new_size=new.size, old_root=old.root.hex(), new_root=new.root.hex())


def _stated(entry: bytes, member: str) -> object:
    try:
        found = json.loads(entry)
    except ValueError:
        return None
    return found.get(member) if isinstance(found, dict) else None


def _from(path: Path, absent: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LedgerError(absent, hint=f"see {path.parent}") from None


def _keep(data: bytes, options: argparse.Namespace, report: Report) -> None:
    if options.output:
        options.output.write_bytes(data)
        report.step(f"kept in {options.output}")


def _checkpoint(data: bytes, options: argparse.Namespace, report: Report) -> Checkpoint:
    root, source = _trusted(options, data)
    head = root.verify(data)
    report.step(f"the checkpoint of {head.origin} at {head.size} entries is signed by a key of {source}")
    if options.policy:
        for each in places.policy(options.policy).verify(data)[1]:
            report.step(f"it is cosigned by {each.witness.name} at {shown_time(each.time)}")
        report.step(f"that is the quorum of {options.policy}")
    return head


def shown_time(seconds: int) -> str:
    """The time of a cosignature, which may be any number, for people."""
    try:
        return format_time(seconds * NS_PER_SECOND)
    except (OverflowError, ValueError):
        return f"{seconds} seconds after 1970"


def _trusted(options: argparse.Namespace, data: bytes) -> tuple[TrustedRoot, str]:
    """Whom to believe, and who says so; ``data`` is the checkpoint, which may choose among the logs of a policy."""
    if options.vkey:
        verifiers = [note.parse_verifier(text) for text in options.vkey]
        if len({verifier.name for verifier in verifiers}) != 1:
            raise LedgerError("the keys are not all of one ledger")
        name = verifiers[0].name
        return TrustedRoot(KIND, name, [Key(each.encode(), name, 0, None, "active") for each in verifiers]), "--vkey"
    logs = places.policy(options.policy).logs if options.policy and not options.trusted_root else []
    if logs:
        name = checkpoint.parse(note.parse(data).text).origin
        own = [Key(each.encode(), name, 0, None, "active") for each in logs if each.name == name]
        return TrustedRoot(KIND, name, own), str(options.policy)
    if options.trusted_root:
        path, source = options.trusted_root, str(options.trusted_root)
    elif options.check:
        raise LedgerError("whom to believe?", hint="give --trusted-root FILE or --vkey KEY, or a --policy with logs")
    else:
        path = places.mounted(options.mount) / ".ledgerfs" / "trusted_root.json"
        source = "the mount itself (give --trusted-root or --vkey to know who signed)"
    return parse_trusted_root(path.read_bytes(), str(path)), source
