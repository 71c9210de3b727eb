"""A log line that cannot be written ends nothing."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import structlog
from ledgerfsd.obs import logging
logging.configure("info", "console")
structlog.get_logger().warning("nobody hears this", n=1)
print("still here")
"""


def test_a_log_on_a_full_disk_is_lost_and_nothing_more() -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, check=False)
    assert found.stdout == b"still here\n"
