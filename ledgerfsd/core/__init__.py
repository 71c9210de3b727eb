"""The C core and its typed face; in ``pure`` its twin in plain Python.

Start at ``engine.Engine`` (what the rest of the daemon uses) and at ``csrc/lfs_core.h`` (what stands behind it); ``json`` and
``hashing`` are faces of single functions. ``build`` compiles it all into ``_core``, which nobody outside of this room imports.
Invariants: the C code and ``pure`` give the same answers and the same bytes; only durable state is visible to readers;
one engine a store. May import leaf modules; no trio, no LMDB.
"""
