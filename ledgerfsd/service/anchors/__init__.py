"""Digests, and what is kept of them outside this machine (docs/FORMAT.md, section 15; docs/SECURITY.md).

A *digest* is a checkpoint that the ledger issues by itself, every few seconds when the log has grown, together with the
evidence that its *anchors* gave for it. Start at ``schedule.Anchoring``; ``digests`` keeps them in the store, ``kinds``
says what an anchor is, and each kind has a file of its own: ``folder``, ``s3``, ``rfc3161``, ``witness``.
"""
