"""The store on disk: where its files are, how it is made, locked and checked.

Start at ``layout`` (paths, creation, lock), then ``stream`` (reading segments), then ``fsck`` (independent check).
Invariants:

* ``journal/`` is the only truth. Nothing here changes a byte of a segment; appending and cutting are the core's.
* A store is open in one process at a time: whoever reads or writes it holds ``lock``.
* ``fsck`` uses nothing that the commit path uses, so that a fault in one is not hidden by the same fault in the other.

May import core and the leaf modules; no trio, no LMDB.
"""
