"""The only way into the ledger: submit, answer, query.

Start at ``ledger.Ledger``. It owns the engine's wake-up, so every intent, whatever door it came through, passes
``Ledger.submit`` and every reader learns of a commit from ``Ledger.on_change`` before the writer does.

* ``ledger``    submissions, their bounded memory, their waiters; the announcement of changes
* ``inbox``     the files of ``inbox/``: names, scratch files, renames; ``inbox_handles`` is the protocol of one open file,
  ``inbox_lines`` that of a stream of lines
* ``receipts``  the answers to inbox files; ``receipt_text`` shows them line by line without rendering them whole
* ``query``     what the files of the mount contain; ``statements`` an account's rows, ``months`` where each month
  begins, ``render`` the texts
* ``proofs``    checkpoints and proofs as texts; ``signing`` asks the ``signer``, a process of its own, for signatures, and
  ``keys`` are the files it works with
* ``status``    health, status and limits as text; ``metrics`` for Prometheus; ``quiet`` log lines that cannot fail

Nothing here knows FUSE; trio is allowed. May import core, journal, merkle, state and the leaf modules.
"""
