"""Projections: what can be thrown away and made again from the journal, kept so that a start need not read it all.

Start at ``opening`` (how a store is opened with what was saved), then ``store`` (LMDB), ``projector`` (when it is
saved), ``rebuild`` and ``check``. Invariants:

* The journal decides. A projection that is missing, short or of another format is thrown away; one that has applied
  entries which the journal lacks is evidence of damage, and nothing starts.
* The mark in LMDB is committed after ``hashes/`` and ``runs/`` up to it are durable, in one transaction with the pages.
* The LMDB environment is opened once in the process and written by one thread (LMDB's rule, py-lmdb's too).

Only this room imports lmdb (``store`` uses it, the others know its errors); no trio.
"""
