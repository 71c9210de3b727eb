"""The mount: FUSE requests turned into calls of the service. The only room that imports pyfuse3.

Start at ``mount.serve``. What the mount promises stands in docs/SEMANTICS.md, and every paragraph of it has a test.

* ``operations`` one handler a request, no logic of its own; nothing but FUSEError leaves it
* ``nodes``      inode numbers, computed from what a file is; ``tree`` names, look-up and listings;
  ``entries`` what a listing tells the kernel
* ``contents``   size, time and bytes of read-only files; ``inbox`` the door to the inbox
* ``kernel``     what the kernel holds, and telling it what changed
* ``branch``     what a part of the tree in a module of its own is: ``exports``, ``events``
* ``requests``   what pyfuse3 does not pass on: interrupts, O_NONBLOCK. Loaded before pyfuse3 is
* ``front``      the core's front, which takes requests before pyfuse3 does

Invariants:

* Whatever the kernel may have cached is invalidated before the writer gets its reply (service.ledger tells ``kernel``).
* Pages of an open file are dropped in a worker thread only. In this one it would wait for pages that a READ has locked, and
  the READ waits for this thread: the daemon would hang beyond the reach of kill -9.
* No call into our own mount, ever.
"""

from ledgerfsd.vfs import requests as requests
