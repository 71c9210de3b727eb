"""``python -m ledgerfsd`` is ``ledgerfsd``, the daemon."""

from __future__ import annotations

import sys

from ledgerfsd.daemon import main

if __name__ == "__main__":
    sys.exit(main())
