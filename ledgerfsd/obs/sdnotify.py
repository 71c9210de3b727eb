"""The notification protocol of systemd (sd_notify(3)): datagrams of ``KEY=value`` lines to ``$NOTIFY_SOCKET``.

``ledgerfs mount`` listens on such a socket itself, so the daemon has one way to say that it is ready or why it failed.
"""

from __future__ import annotations

import os
import socket


def notify(**state: str | int) -> None:
    """Send ``READY=1``, ``STATUS=…`` and the like; does nothing when nobody asked. Never raises: it is only news."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract name space
        address = "\0" + address[1:]
    message = "\n".join(f"{key}={str(value).replace(chr(10), ' ')}" for key, value in state.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)  # a listener that does not read must not stop the ledger
            channel.sendto(message.encode(), address)
    except OSError:
        return
