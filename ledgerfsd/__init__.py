"""LedgerFS: a ledger you can ``cat``. Start reading at ``daemon.py`` (the composition root) or ``docs/FORMAT.md``."""

__version__ = "0.1.0"
