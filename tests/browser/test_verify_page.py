"""ledgerfsd/data/verify.html in a real browser: what it verifies, and that it judges as the verifiers in Python do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledgerfsd.journal.layout import create
from tests.browser.chromium import Big, Chromium
from tests.conftest import LEDGER, REPOSITORY, SEGMENT_BYTES, Daemon
from tests.fuse.conftest import Mounted, lines, pay, with_accounts
from tests.verify.cosigning import TWO_OF_THREE, Cosigner, W, cases, liability_proofs
from tests.verify.cosigning import note as cosigned_note
from tests.verify.support import ORIGIN, VECTORS, Signer, balance_proof, canonical, consistency, mth, sha, verify
from tests.verify.test_balance import accounts, changes, judge, places, put, sibling_with

PAGE = REPOSITORY / "ledgerfsd" / "data" / "verify.html"
SIGNER = Signer()
PYTHON_KEYS = [verify.parse_key(SIGNER.vkey)]
NOTES = json.loads((VECTORS / "signed-note" / "cases.json").read_text())
PARSING = json.loads((VECTORS / "tlog-checkpoint-and-proof-parsing" / "cases.json").read_text())
CCTV = json.loads((VECTORS / "ed25519-cctv" / "ed25519vectors.json").read_text())
RFC6962 = VECTORS / "rfc6962-merkle-proofs" / "testdata"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    made = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield made
    made.close()


@pytest.fixture
def page(browser: Chromium) -> Chromium:
    browser.open(PAGE.as_uri())
    return browser


Judgement = dict[str, Any]


def ask(page: Chromium, function: str, calls: list[tuple[Any, ...]]) -> list[Judgement]:
    """What a function of the page says to each of these calls: ok, reason, result, and the titles of the steps that failed."""
    script = f"""async (calls) => {{
      const found = [];
      for (const call of calls) {{
        const {{ ok, reason, result, steps }} = await LedgerVerify.{function}(...call);
        found.push({{ ok, reason, result, bad: steps.filter((step) => !step.ok).map((step) => step.title) }});
      }}
      return found;
    }}"""
    found: list[Judgement] = []
    for at in range(0, len(calls), 200):  # a message of some megabytes at most
        found += page.apply(script, calls[at : at + 200])
    return found


def outcomes(page: Chromium, body: str, calls: list[tuple[Any, ...]]) -> list[Any]:
    """What an expression over `parts` and `call` comes to; "refused: ..." if it throws a Fault."""
    script = f"""async (calls) => {{
      const parts = LedgerVerify.parts, found = [];
      for (const call of calls) {{
        try {{ found.push(await ({body})); }}
        catch (error) {{ if (!(error instanceof parts.Fault)) throw error; found.push(`refused: ${{error.message}}`); }}
      }}
      return found;
    }}"""
    found: list[Any] = page.apply(script, calls)
    return found


def refused(outcome: Any) -> bool:
    return isinstance(outcome, str) and outcome.startswith("refused: ")


def accepts(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a verifier in Python accepts."""
    try:
        function(*arguments)
    except (verify.Fault, OverflowError):
        return False
    return True


# ---- the page itself


def test_the_policy_forbids_everything_but_the_page_itself() -> None:
    text = PAGE.read_text(encoding="utf-8")
    hashes = {}
    for tag in ("script", "style"):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes[tag] = "sha256-" + base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert policy == (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?:|innerHTML|\bsrc=|\bhref=|\bon[a-z]+=|\beval\b|localStorage", text)
    assert text.count("\n") <= 800


def test_the_page_asks_for_nothing(page: Chromium) -> None:
    """It loads one document, complains of nothing, and cannot open a connection."""
    assert page.evaluate("fetch('data:,x').then(() => 'open', () => 'closed')") == "closed"
    requested = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith("data:")] == [PAGE.as_uri()]
    page.open(PAGE.as_uri())
    assert [e for e in page.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []


def test_every_control_has_a_name(page: Chromium) -> None:
    unnamed = """[...document.querySelectorAll('input, textarea, button')]
      .filter((each) => !each.labels?.length && !each.textContent.trim() && !each.ariaLabel).map((each) => each.outerHTML)"""
    assert page.evaluate(unnamed) == []
    assert page.evaluate("document.documentElement.lang") == "en"


# ---- genuine proofs, from a real mount


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, fuse: None) -> Iterator[Mounted]:
    place = tmp_path_factory.mktemp("real")
    daemon = Daemon(create(place / "store", LEDGER, segment_bytes=SEGMENT_BYTES).root, place / "mount").start()
    try:
        yield with_accounts(daemon, place / "work")
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def test_proofs_of_a_mount_hold(page: Chromium, real: Mounted) -> None:
    trust = (real / ".ledgerfs/trusted_root.json").read_bytes()
    old = (real / "log/checkpoint").read_bytes()
    real.drop("pay.ndjson", lines([pay("1.25"), pay("3.00"), pay("0.01", debit="float", credit="acc_002")]))
    new = (real / "log/checkpoint").read_bytes()
    m, n = (int(note.split(b"\n")[1]) for note in (old, new))
    entry, proof = (real / "transactions/tx_0002.json").read_bytes(), (real / "proofs/tx_0002.tlog-proof").read_bytes()
    path = (real / f"proofs/consistency/{m}-{n}").read_bytes()
    vkey = json.loads(trust)["keys"][0]["vkey"]
    for key in (trust, vkey, vkey + "\n"):
        assert ask(page, "verifyCheckpoint", [(new, key)])[0]["result"]["ledger"] == LEDGER
        assert ask(page, "verifyTransaction", [(proof, entry, key)])[0]["result"]["kind"] == "txn/1"
        found = ask(page, "verifyConsistency", [(path, old, new, key), (path, new, old, key), (path, new, new, key)])
        assert [each["ok"] for each in found] == [True, False, False]
        proofs = [((real / f"proofs/{name}.json").read_bytes(), key) for name in ("acc_001", "acc_002", "float")]
        found = ask(page, "verifyBalance", proofs)
        assert [each["ok"] for each in found] == [True] * 3, found
        for each in found:
            shown = real.balance(each["result"]["account"])
            assert each["result"]["balance"] == f"{shown['balance']} {shown['currency']}"
    other = ask(page, "verifyTransaction", [(proof, entry + b"\n", vkey), (proof, b"{}", vkey), (proof, entry, "")])
    assert [each["ok"] for each in other] == [False] * 3
    assert "No verifier key" in other[2]["reason"]


def test_the_mount_has_the_page(page: Chromium, real: Mounted) -> None:
    path = real / ".ledgerfs" / "verify.html"
    assert path.read_bytes() == PAGE.read_bytes()
    assert path.stat().st_size == PAGE.stat().st_size
    page.open(Path(path).as_uri())
    assert page.evaluate("typeof LedgerVerify.verifyBalance") == "function"


# ---- every change of a balance proof


def test_good_balance_proofs(page: Chromium) -> None:
    proofs = []
    for count in (1, 2, 3, 5, 8, 11):
        everybody = accounts(count)
        proofs += [balance_proof(SIGNER, everybody, account["account"]) for account in everybody]
    found = ask(page, "verifyBalance", [(json.dumps(proof), SIGNER.vkey) for proof in proofs])
    for proof, each in zip(proofs, found, strict=True):
        said = judge(proof)
        assert each["ok"], each
        assert each["result"]["balance"] == f"{said['balance']} {said['currency']}"
        assert each["result"]["liability_of_class"] == f"{said['liability_of_class']} {said['currency']}"
        assert each["bad"] == []


def mutations(good: Any) -> Iterator[tuple[str, str]]:
    """Where and what, and the text of the changed proof."""
    for at in places(good):
        inner = good
        for name in at:
            inner = inner[name]
        others = changes(inner) if at else [[], None]
        if isinstance(inner, dict):
            others += [{key: value for key, value in inner.items() if key != name} for name in inner]
            others += [{**inner, "more": 1}]
        for other in others:
            if other != inner or type(other) is not type(inner):
                made = put(good, at, lambda _, other=other: other) if at else other
                yield f"{at}: {str(inner)[:60]!r} became {str(other)[:60]!r}", json.dumps(made, ensure_ascii=False)


def test_every_change_of_a_balance_proof_is_refused(page: Chromium) -> None:
    good = balance_proof(SIGNER, accounts(), "EUR-6")
    cases = list(mutations(good))
    assert len(cases) > 1500
    assert ask(page, "verifyBalance", [(json.dumps(good), SIGNER.vkey)])[0]["ok"]
    found = ask(page, "verifyBalance", [(text, SIGNER.vkey) for _, text in cases])
    assert [what for (what, _), each in zip(cases, found, strict=True) if each["ok"]] == []
    for (what, _), each in zip(cases, found, strict=True):
        assert len(each["bad"]) == 1, what
        assert each["reason"], what
        assert "cannot be judged" not in each["reason"], f"{what}: {each['reason']}"


def test_texts_that_are_not_strict_json_are_refused(page: Chromium) -> None:
    good = balance_proof(SIGNER, accounts(), "EUR-6")
    text = json.dumps(good)
    spoiled: dict[str | bytes, str] = {
        text.replace('"position": 6', '"position": 5, "position": 6'): "twice",
        text.replace('"position": 6', '"position": 6, "\\u0070osition": 6'): "twice",
        text.replace('"held_debits"', '"debits": "0.00", "held_debits"', 1): "",
        text.replace('"position": 6', '"position": 6.0'): "whole numbers",
        text.replace('"position": 6', '"position": 6e0'): "whole numbers",
        text.replace('"position": 6', '"position": 9007199254740993'): "whole numbers",
        text.replace('"position": 6', '"position": 06'): "not JSON",
        text.replace('"position": 6', '"position": NaN'): "not JSON",
        text.replace('"balance-proof/1"', '"balance-proof/1\\ud800"'): "surrogate",
        "\ufeff" + text: "not JSON",
        text + "x": "not JSON",
        text + " " * 2**20: "1,048,576",
        text.encode().replace(b"balance-proof", b"balance\xffproof"): "UTF-8",
        "[" * 100_000: "not JSON",
        "": "not JSON",
        "null": "object",
    }
    found = ask(page, "verifyBalance", [(each, SIGNER.vkey) for each in spoiled])
    for given, reason, each in zip(spoiled, spoiled.values(), found, strict=True):
        assert not each["ok"], given[:300]
        assert reason in each["reason"], (given[:300], each["reason"])
    spaced = ask(page, "verifyBalance", [(json.dumps(good, indent=3) + "\n ", SIGNER.vkey)])
    assert spaced[0]["ok"]  # FORMAT 13: "the JSON need not be canonical"


def test_forgeries_with_the_key_are_refused(page: Chromium) -> None:
    """Hashed and signed consistently by an operator who hides what is owed."""
    everybody, unbalanced, large = accounts(), accounts(), accounts()
    unbalanced[1]["credits"] += 1
    large[0]["credits"] += 2**127
    next(each for each in large if each["account"] == "EUR-bank")["debits"] += 2**127
    good = balance_proof(SIGNER, everybody, "EUR-6")
    leaves = [sha(b"\0", canonical({"t": "note", "index": index})) for index in range(6)]
    leaves.append(sha(b"\0", good["seal"].encode()))
    swapped = put(good, ("trees",), lambda old: old[::-1])
    cases = [
        (balance_proof(SIGNER, everybody, "EUR-6", sibling_with(liability=0)), "liability is hidden"),
        (balance_proof(SIGNER, everybody, "EUR-6", sibling_with(credits=0, liability=0, debits=0)), "differ"),
        (balance_proof(SIGNER, unbalanced, "EUR-0"), "differ"),
        (balance_proof(SIGNER, large, "EUR-0"), "2^127"),
        (good | {"proof": SIGNER.proof([*leaves, leaves[0]], 6)}, "not the last entry"),
        (good | {"proof": Signer(seed=3).proof(leaves, 6)}, "None of the keys"),
        (swapped, "not in order"),
    ]
    found = ask(page, "verifyBalance", [(json.dumps(proof), SIGNER.vkey) for proof, _ in cases])
    for (_, reason), each in zip(cases, found, strict=True):
        assert not each["ok"]
        assert reason in each["reason"]


# ---- published vectors: the page and the verifier in Python come to the same


def test_published_notes_and_keys(page: Chromium) -> None:
    calls = [(c["note"] if "note" in c else b64decode(c["note_base64"]), c["verifiers"]) for c in NOTES["open"]]
    body = "parts.openNote(call[0], await Promise.all(call[1].map(parts.parseKey))).then((note) => note.signers.map((key) => key.name))"
    found = outcomes(page, body, calls)
    assert len(found) == 16
    for case, each in zip(NOTES["open"], found, strict=True):
        assert set(each) == set(case["verified"]) if case["expect"] == "ok" else refused(each), case["name"]
    spoiled = [SIGNER.vkey.replace("+", " ", 1), SIGNER.vkey[:-1], "x" + SIGNER.vkey, "", "a+b+c", SIGNER.vkey + "AAAA"]
    keys = [*NOTES["bad_vkeys"], *spoiled]
    assert not any(accepts(verify.parse_key, key) for key in keys)
    assert all(refused(each) for each in outcomes(page, "parts.parseKey(call[0])", [(key,) for key in keys]))


def test_every_change_of_a_note_is_refused(page: Chromium) -> None:
    good = SIGNER.checkpoint([sha(b"x")]).encode()
    spoiled = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(len(good))]
    spoiled += [good[:at] for at in range(len(good))]
    spoiled += [good + b"\n", good + b"x\n", good.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + good]
    found = ask(page, "verifyCheckpoint", [(good, SIGNER.vkey), *((each, SIGNER.vkey) for each in spoiled)])
    assert [at for at, each in enumerate(found) if each["ok"]] == [0]


def test_published_checkpoints_and_proof_files(page: Chromium) -> None:
    bodies = [case["text"] for case in PARSING["checkpoint_body"]]
    signers = [Signer(text.partition("\n")[0] or ORIGIN) for text in bodies]
    signed = [(signer.sign(text), signer.vkey) for signer, text in zip(signers, bodies, strict=True)]
    python = [accepts(verify.verify_checkpoint, note, [verify.parse_key(key)]) for note, key in signed]
    assert [each["ok"] for each in ask(page, "verifyCheckpoint", signed)] == python
    texts = [(case["text"],) for case in PARSING["tlog_proof"]]
    found = outcomes(page, "`${parts.parseTlogProof(call[0]).index}`", texts)
    assert [not refused(each) for each in found] == [case["expect"] == "ok" for case in PARSING["tlog_proof"]]
    assert [each for each in found if not refused(each)] == ["5", "10", "0"]


@pytest.mark.parametrize("kind", ["inclusion", "consistency"])
def test_published_merkle_proofs(page: Chromium, kind: str) -> None:
    calls: list[tuple[Any, ...]] = []
    python = []
    for path in sorted((RFC6962 / kind).rglob("*.json")):
        case = json.loads(path.read_text())
        hashes = [b64decode(text) for text in case["proof"] or []]
        names = (
            ("leafIdx", "treeSize", "leafHash", "root") if kind == "inclusion" else ("size1", "size2", "root1", "root2")
        )
        numbers, ends = [case[name] for name in names[:2]], [b64decode(case[name] or "") for name in names[2:]]
        if kind == "inclusion":
            calls.append((*map(Big, numbers), ends[0], hashes, ends[1]))
            python.append(accepts(verify.verify_inclusion, *numbers, ends[0], hashes, ends[1]))
        else:
            calls.append((*map(Big, numbers), *ends, hashes))
            python.append(accepts(verify.verify_consistency, *numbers, *ends, hashes))
    found = outcomes(page, f"parts.{kind}(...call).then(() => true)", calls)
    assert len(found) == 98
    assert sum(python) >= 5
    assert [each is True for each in found] == python


def test_consistency_of_all_small_logs(page: Chromium) -> None:
    leaves = [sha(b"\0", bytes([number])) for number in range(17)]
    calls = []
    for new in range(1, 18):
        for old in range(1, new + 1):
            text = "".join(b64encode(each).decode() + "\n" for each in consistency(leaves[:new], old))
            calls.append((text, SIGNER.checkpoint(leaves[:old]), SIGNER.checkpoint(leaves[:new]), SIGNER.vkey))
    assert all(each["ok"] for each in ask(page, "verifyConsistency", calls))
    spoiled = [(f"{b64encode(mth(leaves)).decode()}\n{text}", *rest) for text, *rest in calls]
    assert not any(each["ok"] for each in ask(page, "verifyConsistency", spoiled))
    foreign = Signer("ledger.example/other")
    both = f"{SIGNER.vkey}\n{foreign.vkey}"
    (other,) = ask(
        page, "verifyConsistency", [("", SIGNER.checkpoint(leaves), foreign.checkpoint(leaves, foreign.name), both)]
    )
    assert "two ledgers" in other["reason"]


def test_published_hashes(page: Chromium) -> None:
    """NIST's, by the browser's own SHA-256, as the page calls it."""
    cases = []
    for name in ("SHA256ShortMsg.rsp", "SHA256LongMsg.rsp"):
        text = (VECTORS / "sha256-nist" / name).read_text()
        cases += re.findall(r"Len = (\d+)\s+Msg = ([0-9a-f]+)\s+MD = ([0-9a-f]{64})", text)
    assert len(cases) > 120
    found = outcomes(
        page,
        "parts.digest(call[0]).then((hash) => [...hash])",
        [(bytes.fromhex(m)[: int(n) // 8],) for n, m, _ in cases],
    )
    assert [bytes(each).hex() for each in found] == [digest for _, _, digest in cases]


def test_published_json(page: Chromium) -> None:
    """What may be an entry: the same as in Python, of the vectors of RFC 8785 and of a suite for parsers."""
    texts = [path.read_bytes() for path in sorted((VECTORS / "json-canonicalization-rfc8785").glob("*put/*"))]
    texts += [path.read_bytes() for path in sorted((VECTORS / "json-parsing-testsuite" / "test_parsing").iterdir())]
    assert len(texts) > 200
    python = [accepts(verify.parse_json, text) for text in texts]
    found = outcomes(page, "Boolean(parts.parseEntry(call[0], 'it'))", [(text,) for text in texts])
    assert [each is True for each in found] == python
    assert 5 < sum(python) < 30


def test_ed25519_edge_cases(page: Chromium) -> None:
    """The browser (BoringSSL) judges all 914 as OpenSSL does: no difference is to be recorded. A later one shows here, with its flags."""
    calls = [(bytes.fromhex(c["key"]), bytes.fromhex(c["sig"]), c["msg"].encode()) for c in CCTV]
    found = outcomes(page, "parts.ed25519(...call)", calls)
    assert len(found) == 914
    for case, each in zip(CCTV, found, strict=True):
        flags = set(case["flags"] or [])
        assert each == (not flags & {"non_canonical_R", "low_order_residue"}), case


# ---- whom to trust


def test_a_key_counts_for_its_sizes_only(page: Chromium) -> None:
    note = SIGNER.checkpoint([sha(bytes([number])) for number in range(7)])
    key = {"vkey": SIGNER.vkey, "name": ORIGIN, "valid_from_size": 0, "valid_to_size": None, "status": "active"}
    root: dict[str, Any] = {"t": "trusted-root/1", "ledger": ORIGIN, "keys": [key]}
    good = [
        {},
        {"valid_from_size": 7},
        {"valid_to_size": 7, "status": "revoked"},
        {"valid_from_size": 7, "valid_to_size": 7},
    ]
    bad = [{"valid_from_size": 8}, {"valid_to_size": 6}]
    bad += [{"vkey": "x"}, {"name": "x"}, {"status": "good"}, {"valid_from_size": "0"}, {"valid_to_size": -1}]
    roots = [root | {"keys": [key | change]} for change in [*good, *bad]]
    roots += [root | {"t": "trusted-root/2"}, root | {"ledger": "x"}, root | {"keys": [key, key]}, root | {"keys": []}]
    found = ask(page, "verifyCheckpoint", [(note, json.dumps(each)) for each in roots])
    assert [each["ok"] for each in found] == [True] * len(good) + [False] * (len(roots) - len(good))
    assert "may not speak for size 7" in found[len(good)]["reason"]
    assert "may not speak for size 7" in found[len(good) + 1]["reason"]


# ---- cosignatures and witness policies


def test_cosigned_checkpoints_are_judged_as_the_others_judge(page: Chromium) -> None:
    """The cases of tests/verify/cosigning.py, which the library and the stand-alone verifier pass too."""
    found = cases()
    trust = ["" if b"log " in each.policy else SIGNER.vkey for each in found]
    calls = [(each.note, key, each.policy) for each, key in zip(found, trust, strict=True)]
    said = ask(page, "verifyCheckpoint", calls)
    assert [case.name for case, each in zip(found, said, strict=True) if each["ok"] is not case.good] == []
    assert [each["reason"] for each in said if "cannot be judged" in each["reason"]] == []
    with_key = ask(page, "verifyCheckpoint", [(each.note, SIGNER.vkey, each.policy) for each in found if each.good])
    assert all(each["ok"] for each in with_key)
    stranger = ask(page, "verifyCheckpoint", [(each.note, Signer(seed=9).vkey, each.policy) for each in found])
    assert not any(each["ok"] for each in stranger), "a key that is given must have signed, whatever the policy says"


def test_published_cosignatures(page: Chromium) -> None:
    vectors = json.loads((VECTORS / "tlog-cosignature" / "cases.json").read_text())["cosignatures"]
    policies = [f"witness w {case['vkey']}\nquorum w\n" for case in vectors]
    body = (
        "parts.openNote(call[0], [...(await parts.parsePolicy(call[1])).witnesses.values()], true)"
        ".then((note) => note.signers.map((key) => key.name))"
    )
    found = outcomes(page, body, [(case["note"], policy) for case, policy in zip(vectors, policies, strict=True)])
    assert found == [[case["name"]] for case in vectors]


def test_every_kind_of_proof_is_held_to_the_policy(page: Chromium) -> None:
    leaves = [sha(b"\0", canonical({"t": "x", "index": index})) for index in range(9)]
    path = "".join(b64encode(each).decode() + "\n" for each in consistency(leaves, 5))
    old, new = SIGNER.checkpoint(leaves[:5]), SIGNER.checkpoint(leaves)
    balance = balance_proof(SIGNER, accounts(), "EUR-6")

    def by(text: str, *witnesses: Cosigner) -> str:
        body = text.rpartition("\n\n")[0].rpartition("\n\n")[2] + "\n"
        return text + "".join(each.line(body) for each in witnesses)

    for count, good in ((1, False), (2, True)):
        some = W[:count]
        assert (
            ask(
                page,
                "verifyTransaction",
                [(by(SIGNER.proof(leaves, 3), *some), canonical({"t": "x", "index": 3}), "", TWO_OF_THREE)],
            )[0]["ok"]
            is good
        )
        signed = balance | {"proof": by(balance["proof"], *some)}
        found = ask(page, "verifyBalance", [(json.dumps(signed), "", TWO_OF_THREE)])[0]
        assert found["ok"] is good
        assert good or found["bad"] == ["The cosignatures of witnesses"]
        calls = [
            (path, by(old, *some), by(new, *W[:2]), "", TWO_OF_THREE),
            (path, by(old, *W[:2]), by(new, *some), "", TWO_OF_THREE),
        ]
        assert [each["ok"] for each in ask(page, "verifyConsistency", calls)] == [good, good]


def test_liabilities_cannot_be_hidden_behind_cosignatures(page: Chromium) -> None:
    proofs = list(liability_proofs())
    found = ask(page, "verifyBalance", [(text, "", TWO_OF_THREE) for _, text, _ in proofs])
    assert [(name, each["ok"]) for (name, _, _), each in zip(proofs, found, strict=True)] == [
        (name, good) for name, _, good in proofs
    ]


def test_a_dropped_policy_is_asked_for_and_shown(page: Chromium) -> None:
    note, policy = cosigned_note(W[0].line(), W[2].line()), TWO_OF_THREE
    drop = """(files) => {
      const dataTransfer = new DataTransfer();
      for (const [name, bytes] of files) dataTransfer.items.add(new File([bytes], name));
      document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    page.apply(drop, [("policy.txt", policy.encode()), ("new.checkpoint", note.encode())])
    page.wait_for("document.querySelector('#results .ok .verdict') !== null", "the green verdict")
    shown = page.evaluate("document.querySelector('#results').innerText")
    assert f"{W[0].name}+{W[0].id.hex()}, 2026-09-21T14:13:20.000Z" in shown
    assert f"{W[1].name}+{W[1].id.hex()}" in shown
    assert "2 of 3, 2 needed" in shown
    assert "policy.txt: witness policy" in page.evaluate("document.querySelector('#files').innerText")
    page.apply(drop, [("other.txt", policy.encode())])
    page.wait_for("document.querySelector('#results').innerText.includes('several witness policies')", "one is enough")
    page.evaluate("document.querySelector('#clear').click()")
    page.apply(drop, [("policy.txt", policy.replace(" 2 a", " 3 a").encode()), ("new.checkpoint", note.encode())])
    page.wait_for("document.querySelector('#results .bad .verdict') !== null", "the red verdict")
    assert "has not cosigned" in verdict(page)


# ---- the page in use


def verdict(page: Chromium) -> str:
    return str(page.wait_for("document.querySelector('#results .verdict')?.textContent", "a verdict"))


def test_files_and_key_lead_to_a_verdict(page: Chromium, tmp_path: Path) -> None:
    good, bad = tmp_path / "EUR-6.json", tmp_path / "spoiled.json"
    proof = balance_proof(SIGNER, accounts(), "EUR-6")
    good.write_text(json.dumps(proof))
    bad.write_text(json.dumps(put(proof, ("account", "credits"), lambda _: "999.00")))
    page.choose("#picker", good)
    assert "No verifier key is given" in verdict(page)
    page.evaluate("document.querySelector('#trust').focus()")
    page.call("Input.insertText", text=SIGNER.vkey)
    page.wait_for("document.querySelector('#results .ok .verdict') !== null", "the green verdict")
    assert verdict(page) == "✓ Verified: every step holds."
    shown = page.evaluate("document.querySelector('#results').innerText")
    assert "EUR-6" in shown
    assert "1.00 EUR" in shown
    assert page.evaluate("document.querySelectorAll('#results li.bad').length") == 0
    page.evaluate("document.querySelector('#files button').focus()")
    page.press("Enter", "\r")  # remove it, without a mouse
    page.wait_for("!document.querySelector('#results .verdict')", "no verdict")
    page.choose("#picker", bad)
    page.wait_for("document.querySelector('#results .bad .verdict') !== null", "the red verdict")
    assert "does not lead to root" in verdict(page)
    assert page.evaluate("document.querySelectorAll('#results li.bad').length") == 1


def test_dropped_files_find_their_places(page: Chromium) -> None:
    """All files of an audit at once, in any order, with the trusted root among them."""
    leaves = [sha(b"\0", canonical({"t": "x", "index": index})) for index in range(9)]
    key = {"vkey": SIGNER.vkey, "name": ORIGIN, "valid_from_size": 0, "valid_to_size": None, "status": "active"}
    text = "".join(b64encode(each).decode() + "\n" for each in consistency(leaves, 5))
    files = [
        ("new.checkpoint", SIGNER.checkpoint(leaves).encode()),
        ("5-9", text.encode()),
        ("tx_0001.json", canonical({"t": "x", "index": 3})),
        ("trusted_root.json", json.dumps({"t": "trusted-root/1", "ledger": ORIGIN, "keys": [key]}, indent=2).encode()),
        ("old.checkpoint", SIGNER.checkpoint(leaves[:5]).encode()),
        ("tx_0001.tlog-proof", SIGNER.proof(leaves, 3).encode()),
    ]
    drop = """(files) => {
      const dataTransfer = new DataTransfer();
      for (const [name, bytes] of files) dataTransfer.items.add(new File([bytes], name));
      document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
    }"""
    page.apply(drop, files)
    page.wait_for("document.querySelectorAll('#results .ok .verdict').length === 2", "two green verdicts")
    titles = page.evaluate("[...document.querySelectorAll('#results h2')].map((each) => each.textContent)")
    assert titles == [
        "Transaction tx_0001.json with tx_0001.tlog-proof",
        "Consistency of old.checkpoint and new.checkpoint",
    ]
    page.evaluate("document.querySelector('#clear').click()")
    page.wait_for("!document.querySelector('#results section')", "an empty page")
    page.apply(drop, files[5:])
    page.wait_for("document.querySelector('#results').innerText.includes('add the transaction')", "what is missing")


def test_pasted_text_is_verified_and_never_becomes_a_page(page: Chromium) -> None:
    signer = Signer("<img/src=x>")
    note = signer.checkpoint([sha(b"x")], signer.name)
    page.apply("(key, note) => { trust.value = key; paste.value = note.trim(); add.click(); }", signer.vkey, note)
    page.wait_for("document.querySelector('#results .ok .verdict') !== null", "the green verdict")
    assert "<img/src=x>" in page.evaluate("document.querySelector('#results').innerText")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
