"""Published vectors and proof files in the stand-alone verifier. What must be refused is refused with a Fault, never otherwise."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.verify.support import ORIGIN, VECTORS, Signer, canonical, consistency, inclusion, mth, sha, verify

PUBLISHED = VECTORS
RFC6962 = PUBLISHED / "rfc6962-merkle-proofs" / "testdata"
NOTES = json.loads((VECTORS / "signed-note" / "cases.json").read_text())
PARSING = json.loads((VECTORS / "tlog-checkpoint-and-proof-parsing" / "cases.json").read_text())
SIGNER = Signer()
KEYS = [verify.parse_key(SIGNER.vkey)]


def vectors(kind: str) -> list[Path]:
    found = sorted((RFC6962 / kind).rglob("*.json"))
    assert len(found) == 98
    return found


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_published_proofs(kind: str) -> None:
    for path in vectors(kind):
        case = json.loads(path.read_text())
        hashes = [b64decode(text) for text in case["proof"] or []]
        if kind == "inclusion":
            numbers, ends = (case["leafIdx"], case["treeSize"]), (case["leafHash"], case["root"])
            call = lambda n, e, h: verify.verify_inclusion(*n, e[0], h, e[1])  # noqa: E731
        else:
            numbers, ends = (case["size1"], case["size2"]), (case["root1"], case["root2"])
            call = lambda n, e, h: verify.verify_consistency(*n, *e, h)  # noqa: E731
        pair = [b64decode(text or "") for text in ends]
        # stricter than the vectors: nothing is proved from the empty tree, and a hash has 32 bytes
        refused = (
            case["wantErr"] or (kind == "consistency" and numbers[0] == 0) or any(len(each) != 32 for each in pair)
        )
        if refused:
            with pytest.raises(verify.Fault):
                call(numbers, pair, hashes)
        else:
            call(numbers, pair, hashes)


def test_all_small_trees() -> None:
    leaves = [sha(b"\0", bytes([number])) for number in range(33)]
    for size in range(1, 34):
        root = mth(leaves[:size])
        frontier = verify.Frontier()
        for leaf in leaves[:size]:
            frontier.push(leaf)
        assert frontier.root() == root
        for index in range(size):
            verify.verify_inclusion(index, size, leaves[index], inclusion(leaves[:size], index), root)
            path = consistency(leaves[:size], index + 1)
            verify.verify_consistency(index + 1, size, mth(leaves[: index + 1]), root, path)
            with pytest.raises(verify.Fault):
                verify.verify_consistency(index + 1, size, mth(leaves[: index + 1]), root, [*path, root])


@pytest.mark.parametrize("case", NOTES["open"], ids=lambda case: case["name"])
def test_published_notes(case: dict[str, Any], tmp_path: Path) -> None:
    keys = [verify.parse_key(text) for text in case["verifiers"]]
    if "note" not in case:  # one that is not UTF-8
        path = tmp_path / "note"
        path.write_bytes(b64decode(next(text for name, text in case.items() if name.startswith("note_"))))
        assert verify.main(["checkpoint", str(path), "--key", case["verifiers"][0]]) == 1
        return
    if case["expect"] == "ok":
        _, signers = verify.open_note(case["note"], keys)
        assert set(signers) == set(case["verified"])
    else:
        with pytest.raises(verify.Fault):
            verify.open_note(case["note"], keys)


def test_bad_keys_are_refused() -> None:
    spoiled = [SIGNER.vkey.replace("+", " ", 1), SIGNER.vkey[:-1], "x" + SIGNER.vkey, "", "a+b+c", SIGNER.vkey + "AAAA"]
    for text in [*NOTES["bad_vkeys"], *spoiled]:
        with pytest.raises(verify.Fault):
            verify.parse_key(text)


@pytest.mark.parametrize("case", PARSING["checkpoint_body"], ids=lambda case: case["name"])
def test_published_checkpoints(case: dict[str, Any]) -> None:
    """FORMAT 13 is stricter than C2SP: a root of 32 bytes, no extension lines."""
    text = case["text"]
    origin, _, rest = text.partition("\n")
    key = [verify.parse_key(Signer(origin).vkey)] if origin else KEYS
    _, *tail = rest.split("\n", 2)
    good = f"{origin}\n{rest.partition(chr(10))[0]}\n{b64encode(bytes(32)).decode()}\n"
    if case["expect"] == "ok" and not tail[0].partition("\n")[2]:
        verify.verify_checkpoint(Signer(origin).sign(good), key)
    signed = (Signer(origin) if origin else SIGNER).sign(text)
    with pytest.raises(verify.Fault):
        verify.verify_checkpoint(signed, key)


@pytest.mark.parametrize("case", PARSING["tlog_proof"], ids=lambda case: case["name"])
def test_published_proof_files(case: dict[str, Any]) -> None:
    if case["expect"] == "ok":
        index, _, checkpoint = verify.parse_tlog_proof(case["text"])
        assert f"index {index}\n" in case["text"]
        assert case["text"].endswith("\n\n" + checkpoint)
    else:
        with pytest.raises(verify.Fault):
            verify.parse_tlog_proof(case["text"])


def signed_by(public: bytes, signature: bytes, text: str) -> bool:
    """Whether a note with this signature opens."""
    key = (ORIGIN, b"\1\2\3\4", public)
    note = f"{text}\n\u2014 {ORIGIN} {b64encode(key[1] + signature).decode()}\n"
    try:
        verify.open_note(note, [key])
    except verify.Fault:
        return False
    return True


def test_ed25519_edge_cases() -> None:
    """The rule is that of RFC 8032 without a cofactor, as OpenSSL and most others have it: recorded here, for other verifiers to match."""
    cases = json.loads((VECTORS / "ed25519-cctv" / "ed25519vectors.json").read_text())
    verified = 0
    for case in cases:
        flags = set(case["flags"] or [])
        public, signature = bytes.fromhex(case["key"]), bytes.fromhex(case["sig"])
        try:
            verify.Ed25519PublicKey.from_public_bytes(public).verify(signature, case["msg"].encode())
            good = True
        except (verify.InvalidSignature, ValueError):
            good = False
        assert good == (not flags & {"non_canonical_R", "low_order_residue"}), case
        verified += good
    assert 0 < verified < len(cases)


def test_wycheproof_signatures() -> None:
    """Messages that can be the text of a note go through notes, the others cannot be signed in one."""
    groups = json.loads((VECTORS / "wycheproof" / "ed25519_test.json").read_text())["testGroups"]
    count = 0
    for group in groups:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
            try:
                verify.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
                good = True
            except (verify.InvalidSignature, ValueError):
                good = False
            assert good == (test["result"] == "valid"), test["tcId"]
            count += 1
            assert not signed_by(public, signature, "another text\n")
    assert count > 100


@pytest.mark.parametrize(
    "path", sorted((PUBLISHED / "json-canonicalization-rfc8785" / "output").iterdir()), ids=lambda p: p.stem
)
def test_canonical_json(path: Path) -> None:
    """What is no integer is refused here; the rest is canonical, and the inputs are not."""
    data = path.read_bytes()
    source = path.parent.parent / "input" / path.name
    if path.stem in ("arrays", "values") or b"." in data.split(b'"')[0]:
        with pytest.raises(verify.Fault):
            verify.parse_json(data)
        return
    assert verify.to_json(verify.parse_json(data)) == data
    with pytest.raises(verify.Fault):
        verify.parse_json(source.read_bytes())


def test_json_parsing_suite_never_tracebacks() -> None:
    for path in sorted((PUBLISHED / "json-parsing-testsuite" / "test_parsing").iterdir()):
        for canonical_too in (True, False):
            try:
                verify.parse_json(path.read_bytes(), canonical=canonical_too)
            except verify.Fault:
                continue
            assert path.name[0] in "yi", path.name


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1.0}',
        '{"a":-0}',
        '{"a":9007199254740992}',
        '{"a":1e3}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"b":1,"a":2}',
        '{"a":1,"a":1}',
    ]
    + [
        '{"a":"\\u0041"}',
        '{"a":"\\ud800"}',
        '{"a": 1}',
        '{"a":1}\n',
        "[]",
        "{}x",
        '{"a":' * 17 + "1" + "}" * 17,
        "[" * 50_000,
    ],
)
def test_entries_that_are_not_canonical(text: str) -> None:
    with pytest.raises(verify.Fault):
        verify.parse_json(text.encode())


def test_tile_names() -> None:
    cases = json.loads((PUBLISHED / "tlog-tiles-paths" / "cases.json").read_text())["index_encoding"]
    assert [verify.tile_path(case["n"]) for case in cases] == [case["path"] for case in cases]
    assert verify.tile_path(1000) == "x001/000"


# ---- whole files, through the command line


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    entries = [canonical({"id": f"n{number}", "index": number, "t": "txn/1", "tx": number + 1}) for number in range(11)]
    leaves = [sha(b"\0", entry) for entry in entries]
    path = "".join(b64encode(each).decode() + "\n" for each in consistency(leaves, 5))
    contents: dict[str, bytes] = {
        "proof": SIGNER.proof(leaves, 4).encode(),
        "entry": entries[4],
        "old": SIGNER.checkpoint(leaves[:5]).encode(),
        "new": SIGNER.checkpoint(leaves).encode(),
        "path": path.encode(),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name for name in contents}


def commands(files: dict[str, Path]) -> list[tuple[list[str], list[str]]]:
    return [
        (["tx", str(files["proof"]), str(files["entry"])], ["proof", "entry"]),
        (["checkpoint", str(files["new"])], ["new"]),
        (["consistency", str(files["old"]), str(files["new"]), str(files["path"])], ["old", "new", "path"]),
    ]


def test_good_files_verify(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for command, _ in commands(files):
        assert verify.main([*command, "--key", SIGNER.vkey, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["origin"] == ORIGIN
        assert verify.main([*command, "--key", Signer(seed=2).vkey]) == 1


def test_every_flipped_bit_of_a_file_is_refused(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The notes have one signature: no byte is without meaning."""
    keys = ["--key", SIGNER.vkey, "--quiet"]
    for command, names in commands(files):
        for name in names:
            data = files[name].read_bytes()
            for at in range(len(data)):
                spoiled = bytearray(data)
                spoiled[at] ^= 1 << (at % 8)
                files[name].write_bytes(spoiled)
                assert verify.main([*command, *keys]) == 1, (name, at)
            for spoiled in (data[:-1], data[: len(data) // 2], data + b"\n", data + data, b""):
                files[name].write_bytes(spoiled)
                assert verify.main([*command, *keys]) == 1, (name, spoiled)
            files[name].write_bytes(data)
    assert "Traceback" not in capsys.readouterr().err


def test_usage_and_unreadable_files(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["checkpoint", str(tmp_path / "none"), "--key", SIGNER.vkey]) == 3
    assert verify.main(["store", str(tmp_path)]) == 3
    assert verify.main(["mount", str(tmp_path)]) == 3
    for wrong in (["checkpoint", str(files["new"])], [], ["store", str(tmp_path), "--anchor", str(files["new"])]):
        with pytest.raises(SystemExit) as ended:
            verify.main(wrong)
        assert ended.value.code == 2
    key = tmp_path / "key"
    key.write_text(SIGNER.vkey + "\n")
    assert verify.main(["checkpoint", str(files["new"]), "--key", str(key)]) == 0
