"""What the core's front does with files of ``inbox/``, made known to the inbox (ADR 36).

The front (``core.front``) takes files that are one document in one ``write``, without a call into Python. Three things come here: what it
has recorded, and perhaps answered (``FrontFiles.learn``), before any request is looked at; once a group commit, if there is something
to do for it here, the other verdicts (``FrontFiles.answer``), whose receipts and names have to be there before the writers go on; and open
files with which something else happens (``FrontFiles.adopt``), which are handles like all others from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from ledgerfsd.core.front import Front, Handed, State, Verdict
from ledgerfsd.errors import CODES
from ledgerfsd.service.receipt_text import outcomes

if TYPE_CHECKING:
    from ledgerfsd.service.inbox import Inbox
    from ledgerfsd.service.inbox_handles import DocumentHandle
    from ledgerfsd.service.receipts import Answer, Document

log = structlog.get_logger()


class FrontFiles:
    """The files of one front. For the thread that has the inbox."""

    def __init__(self, front: Front, inbox: Inbox) -> None:
        self._front = front
        self._inbox = inbox
        self._waiting: dict[int, DocumentHandle] = {}  # adopted, and their verdict is to come
        front.receipts(inbox.receipts.file)
        inbox.receipts.replaced = front.receipt_drop
        inbox.front_changed(front)
        inbox.ledger.answers.append(self.answer)

    def close(self) -> None:
        """The mount has ended."""
        self.learn()
        self._inbox.ledger.answers.remove(self.answer)
        self._inbox.front_changed(None)
        self._inbox.receipts.replaced = lambda _: None

    def learn(self) -> None:
        """Know of the receipts that the core has written. What is asked for from now on has them (SEMANTICS, 1.2)."""
        verdicts = self._front.told()
        if not verdicts:
            return
        receipts, answer = self._inbox.receipts, None
        for verdict in verdicts:
            name = verdict.name
            answer = receipts.recorded(
                name.decode(), verdict.receipt_number, verdict.recorded_ns, verdict.receipt_at, verdict.receipt_len
            )
            self._known(verdict, name, answer)
        assert answer is not None
        receipts.changed(answer)
        self._inbox.tidy()
        self._inbox.ledger.metrics.answered(len(verdicts), 0, (verdict.waited_ns for verdict in verdicts))

    def answer(self) -> None:
        """Record what else was judged, then let its writers go on. (``Ledger`` has told the mount what it changed.)"""
        now_ns = self._inbox.ledger.clock.now_ns()
        try:
            self.learn()
            now_ns = self._record(self._front.take()) or now_ns
        except Exception:
            # What is committed is committed: the writers are told so, and the log has what is missing here.
            log.exception("receipts of inbox files are missing")
            self._inbox.ledger.metrics.faults.inc()
        finally:
            self._front.deliver(now_ns)

    def _record(self, verdicts: list[Verdict]) -> int:
        if not verdicts:
            return 0
        committed = refused = 0
        documents: list[Document] = []
        for verdict in verdicts:
            completion = self._front.completion(verdict)
            committed += completion.committed
            refused += len(completion) - completion.committed
            documents.append((verdict.name.decode(), verdict.size, outcomes(completion.runs(), dry_run=False)))
        answers = self._inbox.receipts.answer_documents(documents)
        for verdict, answer in zip(verdicts, answers, strict=True):
            self._known(verdict, verdict.name, answer)
        self._inbox.tidy()
        self._inbox.ledger.metrics.answered(committed, refused, (verdict.waited_ns for verdict in verdicts))
        return answers[-1].mtime_ns

    def _known(self, verdict: Verdict, name: bytes, answer: Answer) -> None:
        file = self._inbox.get(verdict.number)
        if file is None:
            file = self._inbox.adopt(
                verdict.number, name, uid=verdict.uid, gid=verdict.gid, created_ns=verdict.created_ns
            )
        file.answer = answer
        file.answered_as = name
        if self._waiting and (handle := self._waiting.pop(verdict.number, None)) is not None:
            handle.judged(verdict.size, CODES[verdict.code] if verdict.code else None, answer)

    def adopt(self) -> list[tuple[int, DocumentHandle]]:
        """Open files that the front gives up: the numbers of the handles, and what they are here."""
        self.learn()
        found: list[tuple[int, DocumentHandle]] = []
        while (handed := self._front.adopt(self.learn)) is not None:
            found.append((handed.handle, self._adopted(handed)))
        self._inbox.tidy()
        return found

    def _adopted(self, handed: Handed) -> DocumentHandle:
        inbox = self._inbox
        file = inbox.get(handed.number)
        if file is None:
            # One that was judged was made known then; but so many files may have come since that it is no longer shown.
            shown = handed.state is not State.JUDGED
            file = inbox.adopt(
                handed.number,
                handed.name,
                uid=handed.uid,
                gid=handed.gid,
                created_ns=handed.created_ns,
                shown=shown,
            )
            if not shown:
                file.answer = inbox.receipts.find(handed.name.decode())
                file.answered_as = handed.name
        handle = inbox.adopt_open(file, append=handed.append)
        if handed.state is State.WAITING:
            handle.await_verdict(handed.size)
            self._waiting[handed.number] = handle
        elif handed.state is State.JUDGED:
            handle.judged(handed.size, CODES[handed.code] if handed.code else None, file.answer)
        return handle
