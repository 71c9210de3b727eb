"""``witness``: run a witness for the logs of others, and ask witnesses to cosign one's own."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledgerfsd.cli import places
from ledgerfsd.cli.output import print_json, table
from ledgerfsd.cli.proving import shown_time
from ledgerfsd.errors import LedgerError
from ledgerfsd.merkle import balance_proof, checkpoint, cosignature, note, tlog_proof
from ledgerfsd.merkle.cosignature import Witness
from ledgerfsd.witness.memory import Memory, origin_hash

if TYPE_CHECKING:
    from ledgerfsd.cli import Commands
    from ledgerfsd.merkle.witness_policy import WitnessPolicy
    from ledgerfsd.witness.memory import Log

WITNESS_TEXT: Final = """\
A witness is run by somebody else than the ledger, on another machine. It cosigns a checkpoint when it continues every one
that it has cosigned before, and never cosigns two histories of one ledger: who has root and the key of the ledger cannot
rewrite what was witnessed. It speaks the C2SP protocol tlog-witness, so it serves the logs of others too.

Whoever runs one:

  init     make a witness in an empty --dir, with a new key; --name is a URL without its scheme. Prints the public key
  trust    believe --vkey, the public key of a ledger (`ledgerfs key list` there shows it; it must come by a way that you
           trust); also while the witness is serving
  serve    answer on --listen HOST:PORT, plain HTTP (give it TLS with a reverse proxy on the open network)
  list     the logs that are trusted, what was cosigned last of each, and what was refused. Ends with 1 when there was a
           refusal: somebody should look at the files

Whoever runs a ledger:

  cosign   ask for cosignatures on FILE (a checkpoint, a .tlog-proof or a balance proof) and add them to it. --policy
           names the witnesses and their URLs (or --url and --vkey one of them); --mount is where the consistency
           proofs come from. Ends with 4 when a witness refuses, with 1 when too few could be asked

A witness policy is a text (C2SP tlog-policy), which `prove` and `verify` take with --policy:

  log ledger.example/main+1a2b3c4d+AX...
  witness auditor auditor.example/w1+5e6f7a8b+BC... https://witness.auditor.example/
  witness bank bank.example/w+0a1b2c3d+BD... https://witness.bank.example/
  group both all auditor bank
  quorum both

examples:
  ledgerfs witness init --dir /var/lib/ledgerfs-witness --name auditor.example/w1
  ledgerfs witness trust --dir /var/lib/ledgerfs-witness --vkey ledger.example/main+1a2b3c4d+AX...
  ledgerfs witness serve --dir /var/lib/ledgerfs-witness --listen 127.0.0.1:8642
  ledgerfs prove sum EUR -o sum.json && ledgerfs witness cosign sum.json --policy policy.txt
  ledgerfs prove sum EUR --check sum.json --policy policy.txt
"""
ACTIONS: Final = ("init", "trust", "serve", "list", "cosign")


def register(commands: Commands) -> None:
    """Add the command to the parser."""
    witness = commands.add_parser("witness", help="run a witness, or ask witnesses", description=WITNESS_TEXT)
    witness.add_argument("action", choices=ACTIONS, help="what to do")
    witness.add_argument("file", metavar="FILE", nargs="?", type=Path, help="cosign: what is to be cosigned")
    witness.add_argument("--dir", metavar="DIR", type=Path, help="the witness: its key and what it remembers")
    witness.add_argument("--name", metavar="NAME", help="init: the name of the witness, such as auditor.example/w1")
    witness.add_argument("--vkey", metavar="KEY", help="trust: the public key of a ledger; cosign: that of the witness")
    witness.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8642", help="serve: where (%(default)s)")
    witness.add_argument("--url", metavar="URL", help="cosign: where the witness is")
    witness.add_argument("--policy", metavar="FILE", type=Path, help="cosign: the witnesses, by a witness policy")
    witness.add_argument("--mount", metavar="DIR", help="cosign: the mount (else $LEDGERFS_MOUNT, else ./ledgerfs)")
    witness.add_argument("--log-format", choices=["console", "json"], default="console", help="serve: form of the log")
    witness.set_defaults(run=run_witness)


def run_witness(options: argparse.Namespace) -> int:
    """Do what is asked."""
    if (options.action == "cosign") != (options.file is not None):
        raise LedgerError("cosign takes a FILE, and only cosign does")
    if options.action == "cosign":
        return _cosign(options)
    if options.dir is None:
        raise LedgerError("which witness?", hint="give --dir DIR")
    actions = {"init": _init, "trust": _trust, "serve": _serve, "list": _list}
    return actions[options.action](options)


# -- of whoever runs a witness


def _init(options: argparse.Namespace) -> int:
    if not options.name:
        raise LedgerError("what is the witness called?", hint="give --name, such as auditor.example/w1")
    vkey = Memory.create(options.dir, options.name).key().witness().encode()
    if options.json:
        print_json({"name": options.name, "vkey": vkey})
    else:
        print(f"made the witness {options.name}; give its public key to those who verify:\n{vkey}")
    return 0


def _trust(options: argparse.Namespace) -> int:
    if not options.vkey:
        raise LedgerError("which ledger?", hint="give --vkey, the public key that `ledgerfs key list` shows there")
    verifier = note.parse_verifier(options.vkey)
    new = Memory(options.dir).trust(verifier)
    if options.json:
        print_json({"log": verifier.name, "vkey": options.vkey, "new": new})
    else:
        print(f"{verifier.name} is {'' if new else 'already '}trusted with the key {verifier.key_id:08x}")
    return 0


def _list(options: argparse.Namespace) -> int:
    memory = Memory(options.dir)
    vkey = memory.key().witness().encode()
    logs = memory.logs()
    refused = {each.origin: memory.refused(each.origin) for each in logs}
    if options.json:
        print_json({"vkey": vkey, "logs": [_plain(each, refused[each.origin]) for each in logs]})
    else:
        print(vkey)
        rows = [
            [each.origin, str(each.last.size) if each.last else "-", str(len(refused[each.origin]))] for each in logs
        ]
        table(["LOG", "COSIGNED", "REFUSED"], rows, right=(1, 2))
        for path in (path for paths in refused.values() for path in paths):
            print(f"refused, not the history that was cosigned: {path}")
    return 1 if any(refused.values()) else 0


def _plain(known: Log, refused: list[Path]) -> dict[str, Any]:
    last = {"size": known.last.size, "root": known.last.root.hex()} if known.last else None
    return {
        "origin": known.origin,
        "hash": origin_hash(known.origin),
        "keys": [verifier.encode() for verifier in known.verifiers],
        "cosigned": last,
        "refused": [str(path) for path in refused],
    }


def _serve(options: argparse.Namespace) -> int:
    host, colon, port = options.listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise LedgerError(f"{options.listen!r} is no address", hint="such as 127.0.0.1:8642 or [::1]:8642")
    from ledgerfsd.witness.server import run  # trio and h11: not needed by the commands that only use files

    memory = Memory(options.dir)
    with memory.held():
        run(memory, host.strip("[]"), int(port), log_format=options.log_format)
    return 1 if memory.failure else 0


# -- of whoever runs a ledger


def _cosign(options: argparse.Namespace) -> int:
    import trio  # not needed by the commands that only use files

    from ledgerfsd.service.witnessing import WitnessRefused, WitnessUnreachable, cosign

    data = options.file.read_bytes()
    signed = checkpoint_in(data)
    head = checkpoint.parse(note.parse(signed).text)
    policy, asked = _witnesses(options)
    prove = partial(_consistency, places.mountpoint(options.mount))
    lines, refusals, failures = b"", list[str](), list[str]()
    for url, witness in asked:
        if cosignature.verify(signed, [witness])[1]:
            _say(options, f"ok  {witness.name} had cosigned before")
            continue
        try:
            found = trio.run(partial(cosign, url, witness, signed, prove))
        except WitnessRefused as error:
            refusals.append(str(error))
            _say(options, f"REFUSED  {error}")
        except WitnessUnreachable as error:
            failures.append(str(error))
            _say(options, f"--  {error}")
        else:
            lines += found.lines
            _say(options, f"ok  {witness.name} cosigned {head.size} entries at {shown_time(found.time)}")
    if lines:
        _replace(options.file, append_signatures(data, lines))
    enough = not failures and not refusals
    if policy is not None and not refusals:
        _, cosigned = cosignature.verify(signed + lines, policy.witnesses.values())
        enough = policy.met_by([each.witness for each in cosigned])
        _say(options, "the quorum of the witness policy is met" if enough else "this is not the quorum of the policy")
    if options.json:
        added = lines.count(b"\n")
        print_json({"size": head.size, "added": added, "refused": refusals, "failed": failures, "enough": enough})
    return 4 if refusals else 0 if enough else 1


def _replace(path: Path, data: bytes) -> None:
    """By way of a file beside it: a proof that cannot be fetched again is not to be lost in the middle of a write."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(path)


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        print(text)


def _witnesses(options: argparse.Namespace) -> tuple[WitnessPolicy | None, list[tuple[str, Witness]]]:
    if bool(options.policy) == bool(options.url):
        raise LedgerError("which witnesses?", hint="give --policy FILE, or --url URL and --vkey KEY")
    if options.url:
        if not options.vkey:
            raise LedgerError("an answer is worth what its key is worth", hint="give --vkey, the witness's public key")
        return None, [(options.url, cosignature.parse_witness(options.vkey))]
    policy = places.policy(options.policy)
    asked = [(url, policy.witnesses[name]) for name, url in policy.urls.items()]
    if not asked:
        raise LedgerError(f"{options.policy} gives no witness a URL", hint="witness <name> <vkey> <url>")
    return policy, asked


def _consistency(mount: Path, old: int, new: int) -> list[bytes]:
    path = mount / "proofs" / "consistency" / f"{old}-{new}"
    try:
        return tlog_proof.parse_hashes(path.read_bytes())
    except OSError as error:
        hint = "--mount names the ledger that the checkpoint is of"
        raise LedgerError(
            f"no proof leads from {old} entries, as the witness knows them, to {new} ({path}: {error.strerror})",
            hint=hint,
        ) from None


def checkpoint_in(data: bytes) -> bytes:
    """The signed note in a checkpoint, a tlog-proof or a balance proof. Raises ProofError; nothing is verified."""
    if data.lstrip()[:1] == b"{":
        data = balance_proof.tlog_proof_in(data)
    if data.startswith(tlog_proof.HEADER.encode()):
        return tlog_proof.parse(data).checkpoint
    return data


def append_signatures(data: bytes, lines: bytes) -> bytes:
    """The same file with more signature lines on its checkpoint, which stands at its end."""
    if data.lstrip()[:1] != b"{":
        return data + lines
    value = json.loads(data)
    value["proof"] += lines.decode()
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
