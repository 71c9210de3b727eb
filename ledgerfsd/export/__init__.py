"""Renderers: the ledger in the words of other programs. No state of their own, no engine, no files.

``book`` reads entries and knows who the accounts are; ``journal`` writes for hledger and ledger, ``beancount`` for
beancount.
"""
