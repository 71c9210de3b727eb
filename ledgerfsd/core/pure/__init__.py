"""The C core in plain Python: the same answers and the same bytes, written for reading and not for speed.

It is what property tests hold the C core against, and the reference ledger of the tests through the mount. Start reading
in ``ledger.py``. ``intent.py`` judges shape, ``rules.py`` judges against the state, ``book.py`` writes entries,
``replay.py`` and ``journal.py`` read them again; ``canonical.py`` and ``hashing.py`` are what these stand on.
"""
