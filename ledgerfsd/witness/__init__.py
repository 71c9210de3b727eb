"""A witness for a second organisation to run: it cosigns the checkpoints of logs that it knows, and never two histories of one.

Start at ``judging.judge``: one submission, one answer. ``memory`` is what it must never forget, ``server`` the HTTP around it
(c2sp.org/tlog-witness). Invariants: a cosignature is given out only after the file that remembers it is durable; per log one
submission is judged at a time; a disk in doubt ends all cosigning. May import merkle and leaf modules: no engine, no store, so
that it can be read, and trusted, alone.
"""
