"""``ledgerfsd``: the composition root. Config → lock → recovery → rooms → one nursery → ready; and the way back.

Start at ``main``. The process stays in the foreground: a service manager, or ``ledgerfs mount``, puts it into the
background. Stopping (SIGTERM, SIGINT, or somebody unmounts) goes: unmount, so that nothing new comes; finish what is
queued; save the projection; close. Whatever happens, what was acknowledged is in the journal already.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
import trio

from ledgerfsd import __version__, mounts
from ledgerfsd import config as configs
from ledgerfsd.config import Config
from ledgerfsd.errors import LedgerError, Refused, StoreError
from ledgerfsd.journal import layout as layouts
from ledgerfsd.obs import logging as obs_logging
from ledgerfsd.obs.sdnotify import notify
from ledgerfsd.service import last_signed
from ledgerfsd.service.anchors.digests import Digests, Restore
from ledgerfsd.service.anchors.making import make
from ledgerfsd.service.anchors.schedule import Anchoring
from ledgerfsd.service.consumers import Consumers
from ledgerfsd.service.events import Events
from ledgerfsd.service.exports import Exports
from ledgerfsd.service.keys import Keys, usual_directory
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.proofs import Proofs
from ledgerfsd.service.query import Query
from ledgerfsd.service.signing import Signing
from ledgerfsd.service.socket import gauges, listening
from ledgerfsd.service.system import logged
from ledgerfsd.service.words import Words
from ledgerfsd.state.opening import OpenStore, open_store
from ledgerfsd.vfs import mount as vfs
from ledgerfsd.vfs.branch import Branch
from ledgerfsd.vfs.digests import DigestBranch
from ledgerfsd.vfs.events import EventBranch
from ledgerfsd.vfs.exports import ExportBranch
from ledgerfsd.vfs.history import HistoryBranch
from ledgerfsd.vfs.past import PastBranch
from ledgerfsd.vfs.words import WordBranch

EPILOG: Final = """\
example:
  ledgerfsd --store /var/lib/ledgerfs/main --mount /srv/ledger

It stays in the foreground and logs to stderr; `ledgerfs mount` starts it in the background. SIGTERM, Ctrl-C and
`ledgerfs umount` stop it cleanly. A --config file is TOML with these keys (the command line wins):
  store, mountpoint, keys, signer, last_signed, anchors, anchor_seconds, anchor_limit_seconds, socket, allow_other,
  segment_bytes, log_level, log_format

exit codes: 0 stopped cleanly, 1 error, 2 usage or configuration, 3 the store cannot be opened, 4 the journal is damaged,
or older than what its signer has signed
"""
HEALTH_SECONDS: Final = 1.0
YOUNG_OBJECTS: Final = 10_000  # that come before the garbage collector looks at them: some thousand receipts of files
PROGRESS_SECONDS: Final = 0.5
LOCK_SECONDS: Final = 5  # a daemon that was just unmounted may still be saving

log = structlog.get_logger()


def parser() -> argparse.ArgumentParser:
    """The command line; the man page is made from it."""
    made = argparse.ArgumentParser(
        prog="ledgerfsd",
        description="Mount a ledger: open the store, recover it, and serve it as a file system until it is unmounted.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", metavar="FILE", type=Path, help="read settings from this TOML file")
    made.add_argument("--store", metavar="DIR", help="directory of the store (made by `ledgerfs init`)")
    made.add_argument("--mount", metavar="DIR", dest="mountpoint", help="empty directory to mount on; made if absent")
    made.add_argument(
        "--allow-other",
        action="store_true",
        default=None,
        help="let other users in (see user_allow_other in fuse.conf)",
    )
    made.add_argument(
        "--keys", metavar="DIR", help="directory of the keys that sign checkpoints (default: keys in the store)"
    )
    made.add_argument(
        "--signer", metavar="PATH", help="socket of a signer that runs as a user of its own (see `ledgerfs signer`)"
    )
    made.add_argument(
        "--last-signed",
        metavar="DIR",
        help="directory, apart from the store, where the signer remembers what it signed last (else $LEDGERFS_LAST_SIGNED, "
        "/var/lib/ledgerfs/last-signed for root, ~/.local/state/ledgerfs/last-signed for others)",
    )
    made.add_argument("--socket", metavar="PATH", help="also take intents on a Unix socket: a line in, a line out")
    made.add_argument(
        "--segment-bytes", metavar="N", type=int, help="target size of a journal segment in bytes (default 64 MiB)"
    )
    made.add_argument("--log-level", choices=sorted(obs_logging.LEVELS), help="how much to log (default info)")
    made.add_argument("--log-format", choices=["console", "json"], help="for people or for machines (default console)")
    made.add_argument("--version", action="version", version=f"ledgerfsd {__version__}", help="print the version")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; returns the exit code."""
    options = vars(parser().parse_args(arguments))
    try:
        config = configs.load(options.pop("config"), options)
        obs_logging.configure(config.log_level, config.log_format)
        return run(config)
    except LedgerError as error:
        text = f"{error}; {error.hint}" if error.hint else str(error)
        notify(STATUS=f"failed: {text}", EXIT_STATUS=error.exit_code)
        with contextlib.suppress(OSError):  # the log may lie on the full disk that this is about
            print(f"ledgerfsd: {text}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Our own fault: the log gets the whole story, whoever waits for us the short one.
        log.exception("internal fault")
        notify(STATUS=f"failed: internal fault: {error!r}", EXIT_STATUS=1)
        return 1


def run(config: Config) -> int:
    """Open the store and serve it until told to stop. Raises LedgerError."""
    layout = layouts.Layout(Path(config.store).resolve())
    layouts.check(layout)
    with layouts.lock(layout, patience_seconds=LOCK_SECONDS):
        mountpoint = mounts.prepare(Path(config.mountpoint))
        store = _recover(layout, config)
        try:
            trio.run(_serve, config, store, mountpoint)
        except BaseExceptionGroup as group:
            # A nursery wraps what ends it; the user is told the fault itself.
            faults, _ = group.split(LedgerError)
            if faults is None:
                raise
            raise _first(faults) from None
        finally:
            notify(STOPPING=1, STATUS="finishing what is queued")
            store.close()
        log.info("stopped", unsaved=store.projector.trouble or None)
        return 0 if not store.engine.failure else 1


def _first(group: BaseExceptionGroup[LedgerError]) -> LedgerError:
    fault = group.exceptions[0]
    return _first(fault) if isinstance(fault, BaseExceptionGroup) else fault


def _recover(layout: layouts.Layout, config: Config) -> OpenStore:
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            notify(STATUS=f"recovering: {done * 100 // max(total, 1)} %", EXTEND_TIMEOUT_USEC=60_000_000)
            log.info("recovering", done_bytes=done, total_bytes=total)

    notify(STATUS="recovering")
    store = open_store(layout, segment_bytes=config.segment_bytes, progress=progress)
    found = store.engine.recovery
    log.info(
        "recovered",
        store=str(layout.root),
        entries=found.entries,
        replayed=found.replayed,
        cut_bytes=found.cut_bytes,
        seconds=round(found.seconds, 3),
    )
    return store


async def _serve(config: Config, store: OpenStore, mountpoint: Path) -> None:
    ledger = Ledger(store.engine, store.layout)
    signing = Signing(
        ledger,
        Keys(_keys(config, store.layout), ledger.origin),
        apart=None if config.signer else last_signed.place(store.layout, config.last_signed),
        service=Path(config.signer) if config.signer else None,
    )
    query = Query(ledger)
    proofs = Proofs(ledger, query, signing)
    restores = [Restore(entry["incarnation"], entry["size"]) for _, entry in logged(store.engine, "restore/1")]
    digests = Digests(store.layout.digests, restores)
    ledger.points.is_digest = lambda size: digests.get(size) is not None
    ledger.points.digests = digests.sizes
    exports = Exports(store.engine, query, ledger.origin, store.layout.exports)
    events = Events(ledger)
    consumers = Consumers(store.layout.consumers, events, ledger.clock)
    branches: list[Branch] = [
        DigestBranch(ledger.origin, digests, query.mtime_of(0)),
        ExportBranch(store.engine, query, exports),
        PastBranch(ledger, proofs),
        EventBranch(events, consumers),
        HistoryBranch(store.engine, query),
        WordBranch(store.engine, Words(store.engine, store.layout.root)),
    ]
    proofs.cosignatures = digests.cosignatures
    anchoring = Anchoring(
        ledger,
        query,
        proofs,
        digests,
        [(make(table, store.engine), table) for table in configs.anchor_tables(config)],
        interval=config.anchor_seconds,
        limit=config.anchor_limit_seconds,
    )
    ledger.troubles += [
        lambda: store.projector.trouble,
        lambda: store.engine.indexes().trouble,
        signing.trouble,
        anchoring.trouble,
        consumers.trouble,
    ]
    ledger.gauges += [anchoring.gauges, query.gauges, consumers.gauges]
    ledger.facts.append(anchoring.facts)
    ledger.on_change += [events.feed.committed, proofs.committed]

    def ready() -> None:
        _settle()
        log.info("mounted", mountpoint=str(mountpoint), pid=os.getpid())
        notify(READY=1, STATUS=f"mounted at {mountpoint}")

    # Before anything is accepted: a store that was rolled back must not be written to.
    await signing.start()
    anchoring.compare()
    store.engine.start()
    store.projector.start()
    ledger.gauges.append(lambda: gauges(store.engine))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        await _record_keys(proofs)
        nursery.start_soon(events.feed.run)
        nursery.start_soon(_watch, store)
        nursery.start_soon(signing.run)
        nursery.start_soon(anchoring.run)
        async with trio.open_nursery() as serving:
            # Signals end the serving only: what it has queued is still collected by ledger.run.
            await serving.start(_signals, serving.cancel_scope)
            serving.start_soon(proofs.sign_ahead)
            with listening(store.engine, Path(config.socket) if config.socket else None):
                await vfs.serve(
                    ledger, proofs, mountpoint, branches, allow_other=config.allow_other, front=_front(), ready=ready
                )
            serving.cancel_scope.cancel()
        exports.save()
        nursery.cancel_scope.cancel()


def _settle() -> None:
    """What was loaded so far stays: the garbage collector need not look at it again, nor at every few hundred new objects (ADR 50)."""
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


async def _record_keys(proofs: Proofs) -> None:
    """If the log cannot be written now, it is read-only and says so; the keys are tried again with the next checkpoint."""
    try:
        await proofs.record_keys()
    except Refused as error:
        log.warning("the keys could not be recorded in the log", reason=str(error))
    except OSError as error:
        hint = "this user must be able to read trusted_root.json in the directory of the keys"
        raise StoreError(f"{error.filename}: {error.strerror}", hint=hint) from None


def _front() -> bool:
    """Whether the core may answer requests of the mount (ADR 36). Off it is a way to find out whether a fault is the front's."""
    return os.environ.get("LEDGERFS_FRONT", "on") != "off"


def _keys(config: Config, layout: layouts.Layout) -> Path:
    return Path(config.keys).resolve() if config.keys else usual_directory(layout.root)


async def _signals(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            log.info("stopping", signal=signal.Signals(number).name)
            notify(STOPPING=1, STATUS="unmounting")
            scope.cancel()
            return


async def _watch(store: OpenStore) -> None:
    """Say once, and loudly, when the ledger turns read-only; feed the service manager's watchdog."""
    said = False
    while True:
        if store.engine.failure and not said:
            said = True
            log.error("the ledger is read-only", reason=store.engine.failure)
            notify(STATUS=f"read-only: {store.engine.failure}")
        if "WATCHDOG_USEC" in os.environ:
            notify(WATCHDOG=1)
        await trio.sleep(HEALTH_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
