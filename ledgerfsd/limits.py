"""Every bound, with its arithmetic. ``docs/FORMAT.md`` states those that are part of the format."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

ENTRY_BYTES_MAX: Final = 65_535  # the length field of a tlog-tiles entry bundle is a u16
INTENT_BYTES_MAX: Final = 48 * KIB  # a rejection repeats the intent and must fit into an entry
METADATA_BYTES_MAX: Final = 16 * KIB  # 200 postings of the widest kind (240 bytes) and this still fit into an entry
JSON_DEPTH_MAX: Final = 16
ID_BYTES_MAX: Final = 128
NAME_BYTES_MAX: Final = 64
TEXT_BYTES_MAX: Final = 256
TAGS_MAX: Final = 16
TAG_BYTES_MAX: Final = 64
POSTINGS_MAX: Final = 200
DECIMALS_MAX: Final = 18
AMOUNT_MAX: Final = 2**128 - 1
TOTAL_LIMIT: Final = 2**127  # totals stay below, so that a sum of two of them fits into 128 bits

BATCH_INTENTS_MAX: Final = 8_192  # intents of an atomic batch, and of a group commit
DOCUMENT_BYTES_MAX: Final = 64 * MIB  # a JSON array in one inbox file; NDJSON files have no limit
BUNDLE_ENTRIES: Final = 256
SEGMENT_BYTES: Final = 64 * MIB
SEGMENT_BYTES_MIN: Final = 1 * MIB
ACCOUNTS_MAX: Final = 16 * 1024 * 1024  # address space is reserved for so many (6 GiB of it, touched as used)
ENTRIES_MAX: Final = 2**32 - 2  # tables and runs hold 32-bit indexes

INFLIGHT_BYTES_MAX: Final = 256 * MIB  # intents accepted but not yet answered; above it close() waits
WAIT_SECONDS_MAX: Final = 30  # how long close() waits for room before it answers EBUSY
RECEIPTS_LISTED_MAX: Final = 100_000  # the newest receipts that receipts/ lists and finds
