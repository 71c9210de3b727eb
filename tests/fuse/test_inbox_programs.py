"""Every way in which programs write files, against the inbox: how many transactions, which exit status, which receipt.

Each case is a bash script. ``$I`` is the inbox; ``$GOOD``, ``$POOR`` (beyond the balance), ``$BAD`` (not JSON) and
``$HALF`` (cut off) are files outside the mount; ``$N`` is a name of the case's own. A case says how many transactions
there must be more, whether the script succeeds, and which code the receipt of which file ends with.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tests.fuse.conftest import Mounted, lines, pay, until


class Case(NamedTuple):
    """A script and what must come of it."""

    script: str
    commits: int
    succeeds: bool
    receipt: str = "$N.json"
    code: str = "ok"


FORK = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
text = open(sys.argv[2], "rb").read()
os.write(fd, text[:40])
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.close(go)
    os.read(ready, 1)  # until the parent has closed its descriptor
    os.write(fd, text[40:])
    os.close(fd)
    os._exit(0)
os.close(ready)
try:
    os.close(fd)
except OSError:
    pass  # it is told that the document is not complete, which is true
os.close(go)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
KILLED = """
import os, signal, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
text = open(sys.argv[2], "rb").read()
os.write(fd, text[: int(sys.argv[3])])
os.kill(os.getpid(), signal.SIGKILL)
"""
BYTEWISE = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
for byte in open(sys.argv[2], "rb").read():
    os.write(fd, bytes([byte]))
os.close(fd)
"""
REPLACED = """
import os, sys
temporary = sys.argv[1] + ".tmp"
with open(temporary, "w") as file:
    file.write(open(sys.argv[2]).read())
    file.flush()
    os.fsync(file.fileno())
os.replace(temporary, sys.argv[1])
"""
SHARED_MAP = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, b'{"debit":"acc_001",')
try:
    mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
except OSError as error:
    sys.exit(error.strerror)
"""
SECOND = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
os.write(fd, open(sys.argv[2], "rb").read())
os.write(fd, b'{"debit":"acc_001","credit":"acc_002","amount":"3.00"}')
"""

CASES = {
    # the shell's own echo: it looks at write(), never at close()
    "echo": Case('echo "$(cat $GOOD)" > $I/$N.json', 1, True),
    "echo-refused": Case('echo "$(cat $POOR)" > $I/$N.json', 0, False, code="insufficient_funds"),
    "echo-malformed": Case('echo "$(cat $BAD)" > $I/$N.json', 0, False, code="bad_json"),
    "echo-incomplete": Case('echo "$(cat $HALF)" > $I/$N.json', 0, True, code="incomplete"),
    "echo-append": Case('cat $LINE >> $I/$N.ndjson; cat $LINE >> $I/$N.ndjson', 2, True, "$N.ndjson"),
    "external-echo": Case('/bin/echo "$(cat $GOOD)" > $I/$N.json', 1, True),
    "external-echo-incomplete": Case('/bin/echo "$(cat $HALF)" > $I/$N.json', 0, False, code="incomplete"),
    "sort": Case("sort $LINES > $I/$N.ndjson", 3, True, "$N.ndjson"),
    # programs that copy
    "cp": Case("cp $GOOD $I/$N.json", 1, True),
    "cp-refused": Case("cp $POOR $I/$N.json", 0, False, code="insufficient_funds"),
    "cp-incomplete": Case("cp $HALF $I/$N.json", 0, False, code="incomplete"),
    "cp-preserve": Case("cp -p $GOOD $I/$N.json", 1, True),
    "install": Case("install -m 640 $GOOD $I/$N.json", 1, True),
    "mv": Case("cp $GOOD m.json; mv m.json $I/$N.json && ! test -e m.json", 1, True),
    "mv-refused": Case("cp $POOR m.json; mv m.json $I/$N.json; s=$?; test -e m.json && exit $s", 0, False,
                       code="insufficient_funds"),
    "rsync": Case("rsync $GOOD $I/$N.json", 1, True),
    "rsync-archive": Case("rsync -a $GOOD $I/$N.json", 1, True),
    "rsync-refused": Case("rsync $POOR $I/$N.json", 0, False, code="insufficient_funds"),
    "rsync-inplace": Case("rsync --inplace $GOOD $I/$N.json", 1, True),
    "tee": Case("cat $GOOD | tee $I/$N.json > /dev/null", 1, True),
    "dd": Case("dd if=$GOOD of=$I/$N.json status=none", 1, True),
    "dd-fsync": Case("dd if=$GOOD of=$I/$N.json conv=fsync status=none", 1, True),
    "dd-pieces": Case("dd if=$GOOD of=$I/$N.json bs=7 status=none", 1, True),
    # programs of one's own
    "python": Case("python3 -c 'import sys; open(sys.argv[1], \"w\").write(open(sys.argv[2]).read())' $I/$N.json $GOOD",
                   1, True),
    "python-refused": Case(
        "python3 -c 'import sys\nwith open(sys.argv[1], \"w\") as f: f.write(open(sys.argv[2]).read())' $I/$N.json $POOR",
        0, False, code="insufficient_funds"),
    "python-replace": Case('python3 -c "$REPLACED" $I/$N.json $GOOD', 1, True),
    "python-replace-refused": Case('python3 -c "$REPLACED" $I/$N.json $POOR', 0, False, code="insufficient_funds"),
    "bytewise": Case('python3 -c "$BYTEWISE" $I/$N.json $GOOD', 1, True),
    "fork": Case('python3 -c "$FORK" $I/$N.json $GOOD', 1, True),
    "killed-midway": Case('python3 -c "$KILLED" $I/$N.json $GOOD 40', 0, False, code="incomplete"),
    "killed-after": Case('python3 -c "$KILLED" $I/$N.json $GOOD 10000', 1, False),
    "killed-lines-midway": Case('python3 -c "$KILLED" $I/$N.ndjson $LINES 100', 1, False, "$N.ndjson", "incomplete"),
    "second-document": Case('python3 -c "$SECOND" $I/$N.json $GOOD', 1, False, code="already_committed"),
    "mapped": Case('python3 -c "$SHARED_MAP" $I/$N.json 2>&1 | grep "No such device"', 0, True, code="incomplete"),
    # documents and lines from several processes
    "split-document": Case("{ head -c 30 $GOOD; /bin/cat /dev/null; tail -c +31 $GOOD; } > $I/$N.json; cat $I/$N.json",
                           1, True),
    "held-descriptor": Case("exec 3> $I/$N.ndjson; sed -n 1p $LINES >&3; sed -n 2p $LINES >&3; exec 3>&-", 2, True,
                            "$N.ndjson"),
    "lines-group": Case('{ sed -n 1p $LINES; echo; /bin/cat /dev/null; sed -n 2,3p $LINES; } > $I/$N.ndjson', 3, True,
                        "$N.ndjson"),
    "lines-2000": Case("cp $MANY $I/$N.ndjson", 2000, True, "$N.ndjson"),
    "lines-last-without-newline": Case('printf %s "$(cat $LINES)" > $I/$N.ndjson', 3, True, "$N.ndjson"),
    "lines-cut": Case("head -c -20 $LINES > cut; cp cut $I/$N.ndjson", 2, False, "$N.ndjson", "incomplete"),
    "lines-one-bad": Case("{ sed -n 1p $LINES; cat $BAD; sed -n 3p $LINES; } > bad; cp bad $I/$N.ndjson", 2, False,
                          "$N.ndjson", "ok"),
    # the same again, and two at once
    "same-again": Case("cp $KEYED $I/$N.json && cp $KEYED $I/$N-2.json", 1, True, "$N-2.json"),
    "same-key-other-body": Case("cp $KEYED2 $I/$N.json && sed s/1.00/2.00/ $KEYED2 > o; cp o $I/$N-2.json", 1, False,
                                "$N-2.json", "id_reused"),
    "two-writers": Case("exec 3> $I/$N.json 4> $I/$N.json; cat $GOOD >&3 & cat $OTHER >&4; wait $!", 2, True),
    # all or nothing
    "array": Case("cp $ARRAY $I/$N.json", 3, True),
    "array-one-bad": Case("sed s/2.00/2000000.00/ $ARRAY > a; cp a $I/$N.json", 0, False, code="batch_aborted"),
    "atomic-header": Case('{ echo \'{"count":3}\'; cat $LINES; } > h; cp h $I/atomic/$N.ndjson', 3, True, "$N.ndjson"),
    "atomic-plain": Case("cp $LINES $I/atomic/$N.ndjson", 0, False, "$N.ndjson", "incomplete"),
    "atomic-rsync": Case("rsync $LINES $I/atomic/$N.ndjson", 3, True, "$N.ndjson"),
    # editors, and what only looks like a file
    "vim": Case("vim -u NONE -N -es -c \"normal i$(cat $GOOD)\" -c wq $I/$N.json < /dev/null", 1, True),
    "sed-in-place-and-mv": Case("cp $GOOD $I/$N.tmp; sed -i s/1.00/1.50/ $I/$N.tmp; mv $I/$N.tmp $I/$N.json", 1, True),
    "touch": Case("touch $I/$N.json", 0, True, code="empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_program(shared: Mounted, name: str) -> None:
    case = CASES[name]
    before = shared.transactions()
    done = shared.shell(case.script, **_files(shared, name))
    assert shared.transactions() - before == case.commits, done
    assert (done.returncode == 0) == case.succeeds, done
    receipt = case.receipt.replace("$N", name)
    answers = _receipt(shared, receipt)
    assert answers[-1]["code"] == case.code, answers
    assert all(answer["meaning"] for answer in answers if answer["status"] == "refused")
    assert shared.balance("acc_001")["as_of"]["index"] < shared.status()["entries"]


def _receipt(shared: Mounted, name: str) -> list[dict[str, object]]:
    # The receipt of a file that was closed without an error to tell (touch, SIGKILL) is written when the kernel says so.
    until((shared / f"receipts/{name}").exists)
    return shared.receipt(name)


def _files(shared: Mounted, case: str) -> dict[str, str]:
    """What the scripts copy. Amounts and ids are small and of the case's own."""
    texts = {
        "GOOD": json.dumps(pay(reference=case)) + "\n",
        "OTHER": json.dumps(pay("2.00", reference=case)) + "\n",
        "POOR": json.dumps(pay("9000000.00", reference=case)) + "\n",
        "BAD": '{"debit":"acc_001",,"credit":"acc_002"}\n',
        "HALF": '{"debit":"acc_001","credit":"acc_002",',
        "LINE": json.dumps(pay("1.10")) + "\n",
        "LINES": lines([pay("1.00"), pay("2.00"), pay("3.00")]),
        "MANY": lines([pay(f"0.{1 + number % 99:02}") for number in range(2000)]),
        "ARRAY": json.dumps([pay("1.00"), pay("2.00"), pay("3.00")]),
        "KEYED": json.dumps(pay(id=f"key-{case}")),
        "KEYED2": json.dumps(pay(id=f"key2-{case}")),
    }
    for name, text in texts.items():
        (shared.work / name).write_text(text)
    paths = {name: str(shared.work / name) for name in texts}
    programs = {"FORK": FORK, "KILLED": KILLED, "BYTEWISE": BYTEWISE, "REPLACED": REPLACED}
    return paths | programs | {"SHARED_MAP": SHARED_MAP, "SECOND": SECOND, "N": case}
