"""Benchmarks of LedgerFS through the mount. Start at ``run.py``; ``make bench`` runs it."""
