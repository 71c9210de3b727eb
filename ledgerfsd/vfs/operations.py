"""One handler a FUSE request. They are thin: names are ``tree``'s, bytes ``contents``', the inbox is behind ``inbox``.

``@answer`` is around every handler: whatever is raised becomes an errno. An exception that pyfuse3 does not expect would
end the whole mount, so what we did not foresee is EIO and a line in the log.

ENOSYS is remembered by the kernel for the whole mount, so it is used for one call on purpose, ``access`` (the kernel
then decides by itself, without asking), and never by accident: every other handler is here.
"""

# ruff: noqa: ARG002  (the arguments are the requests', used or not)

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3
import structlog
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, FUSEError, InodeT, ModeT, RequestContext

from ledgerfsd.errors import Refused
from ledgerfsd.service.inbox import Inbox
from ledgerfsd.service.inbox_handles import InboxHandle
from ledgerfsd.service.ledger import Ledger
from ledgerfsd.service.proofs import Proofs
from ledgerfsd.service.query import Query
from ledgerfsd.service.receipts import Receipts
from ledgerfsd.service.status import Status
from ledgerfsd.vfs import entries, handles, nodes
from ledgerfsd.vfs.branch import READY, Branch, Branches, Handle, Keep
from ledgerfsd.vfs.contents import Contents
from ledgerfsd.vfs.handles import Handles, OpenDirectory, OpenInboxFile, OpenText
from ledgerfsd.vfs.inbox import AREAS, Door
from ledgerfsd.vfs.kernel import LONG, Kernel, Notify
from ledgerfsd.vfs.nodes import Kind
from ledgerfsd.vfs.tree import Tree

log = structlog.get_logger()

NAME_BYTES_MAX: Final = 255
XATTR: Final = b"user.ledgerfs."

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate["LedgerOperations", P], Coroutine[Any, Any, R]]


def answer(handler: Handler[P, R]) -> Handler[P, R]:
    """Let nothing but FUSEError out of a handler."""

    @functools.wraps(handler)
    async def guarded(self: LedgerOperations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Refused as error:
            raise FUSEError(error.code.errno) from None
        except OSError as error:
            # EINVAL makes mv say that a file is moved into itself.
            raise FUSEError(error.errno if error.errno and error.errno != errno.EINVAL else errno.EIO) from None
        except Exception:
            log.exception("request failed", request=handler.__name__, arguments=repr(args)[:200])
            self.ledger.metrics.faults.inc()
            raise FUSEError(errno.EIO) from None

    return guarded


class LedgerOperations(pyfuse3.Operations):
    """The file system. ``notify`` tells the kernel of changes."""

    supports_dot_lookup = False
    enable_writeback_cache = False  # it merges writes of different files' owners and swallows errors
    enable_acl = False

    def __init__(
        self,
        ledger: Ledger,
        proofs: Proofs,
        notify: Notify,
        branches: Sequence[Branch] = (),
        *,
        names_only: bool | None = None,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.receipts = Receipts(ledger.layout.receipts, ledger.clock, ledger.metrics)
        self.inbox = Inbox(ledger, self.receipts)
        self.query = Query(ledger)
        self.proofs = proofs
        self.branches = Branches(branches)
        self.tree = Tree(ledger.engine, self.query, self.inbox, self.receipts, self.proofs, self.branches)
        status = Status(ledger, self.inbox)
        self.contents = Contents(ledger, self.query, self.receipts, status, self.proofs, self.branches)
        self.kernel = Kernel(ledger.engine, notify, self.contents.stat)
        self.door = Door(self.inbox)
        self.handles = Handles()
        self._names_only = entries.AVAILABLE if names_only is None else names_only
        self._uid, self._gid = os.getuid(), os.getgid()
        ledger.on_change.append(self.kernel.committed)
        self.receipts.on_change.append(self.kernel.answered)

    # -- names and attributes

    @answer
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """LOOKUP. A name that is not there is never cached: it may be there after the next commit."""
        inode, lasting = await self.tree.lookup(parent_inode, name)
        if not inode:
            raise FUSEError(errno.ENAMETOOLONG if len(name) > NAME_BYTES_MAX else errno.ENOENT)
        self.kernel.hold(inode)
        try:
            entry = await self._attributes(inode)
        except BaseException:
            self.kernel.forget([(inode, 1)])
            raise
        entry.entry_timeout = LONG if lasting and nodes.kind_of(inode) is not Kind.INBOX_FILE else 0
        if self.kernel.changes(inode):
            entry.attr_timeout = 0  # see kernel.py
        return entry

    @answer
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """FORGET. Nobody hears an error of it; pyfuse3 would end the mount."""
        self.kernel.forget(inode_list)

    @answer
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """GETATTR."""
        asked = self.kernel.asking(inode)
        entry = await self._attributes(inode)
        if not self.kernel.lasting(inode, asked):
            entry.attr_timeout = 0
        return entry

    @answer
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """SETATTR. On inbox files only the size means anything; cp -p, mv and rsync set the rest and must not fail."""
        if branch := self.branches.of(inode):
            if not fields.update_size:
                raise FUSEError(errno.EROFS)
            await branch.truncate(inode, attr.st_size)
            return await self._attributes(inode)
        if nodes.kind_of(inode) is not Kind.INBOX_FILE:
            raise FUSEError(errno.EPERM if inode in AREAS else errno.EROFS)
        if fields.update_size:
            file = self.door.file(nodes.number_of(inode))
            self.door.resize(file, self.handles.get(fh) if fh is not None else None, attr.st_size)
        return await self._attributes(inode)

    async def _attributes(self, inode: int) -> EntryAttributes:
        entry = EntryAttributes()
        kind = nodes.kind_of(inode)
        entry.st_ino = InodeT(inode)
        entry.st_uid, entry.st_gid = self._uid, self._gid
        entry.attr_timeout = entry.entry_timeout = LONG
        if kind is Kind.INBOX_FILE:
            file = self.door.file(nodes.number_of(inode))
            entry.st_uid, entry.st_gid = file.uid, file.gid
            entry.st_nlink = int(file.linked)
            mode, size, mtime_ns = stat.S_IFREG | 0o644, self.door.size(file), self.door.mtime_ns(file)
            entry.attr_timeout = entry.entry_timeout = 0
        elif inode in AREAS:
            mode, size, mtime_ns = stat.S_IFDIR | 0o775, 0, self.door.directory_mtime_ns(inode)
        else:
            size, mtime_ns = await self.kernel.stat(inode)
            mode = nodes.format_of(inode) | (0o555 if nodes.is_directory(inode) else 0o444)
            branch = self.branches.of(inode)
            if branch:
                mode = (mode & ~0o777) | branch.mode(inode)
            if self.contents.is_live(inode) or (branch and branch.keep(inode) is Keep.NOTHING):
                entry.attr_timeout = 0
        if stat.S_ISDIR(mode):
            entry.st_nlink = 2
        entry.st_mode = ModeT(mode)
        entry.st_size = size
        entry.st_blocks = (size + 511) // 512
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
        return entry

    # -- files

    @answer
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """OPEN. Of most files the kernel keeps the pages (see ``kernel``); live ones bypass its cache."""
        if branch := self.branches.of(inode):
            opened = await branch.open(inode, flags)
            if opened is not None:
                return self._with_handle(opened)
            forever = branch.keep(inode) is Keep.FOREVER
            return FileInfo(fh=FileHandleT(inode), direct_io=not forever, keep_cache=forever)
        if nodes.kind_of(inode) is Kind.INBOX_FILE:
            handle = self.door.open(self.door.file(nodes.number_of(inode)), flags)
            return FileInfo(fh=self._opened(handle), direct_io=True, keep_cache=False)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        if self.contents.is_live(inode):
            text = OpenText(await self.contents.live(inode))
            return FileInfo(fh=FileHandleT(self.handles.add(text)), direct_io=True, keep_cache=False)
        await self.contents.prepare(inode)
        await self.kernel.opened(inode)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    @answer
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """CREATE."""
        if len(name) > NAME_BYTES_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        if branch := self.branches.of(parent_inode):
            inode, made = await branch.create(parent_inode, name, flags)
            return self._with_handle(made), await self._attributes(inode)
        file = self.door.create(parent_inode, name, flags, ctx)
        handle = self.door.open(file, flags)
        entry = await self._attributes(nodes.inode(Kind.INBOX_FILE, file.number))
        return FileInfo(fh=self._opened(handle), direct_io=True, keep_cache=False), entry

    @answer
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """READ. (A memoryview is as good as bytes to pyfuse3, and spares a copy.)"""
        if fh < handles.FIRST:
            return await self.contents.read(fh, off, size)  # type: ignore[return-value]
        handle = self.handles.get(fh)
        if isinstance(handle, OpenDirectory):
            raise FUSEError(errno.EISDIR)
        if isinstance(handle, Handle):
            return await handle.read(off, size)
        return handle.read(off, size)

    @answer
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """WRITE. The verdict on what it completes is its result."""
        return await self._writer(fh).write(off, buf)

    @answer
    async def poll(
        self, inode: InodeT, fh: FileHandleT, poll_handle: pyfuse3.PollHandle | None, ctx: RequestContext
    ) -> int:
        """POLL. Only a branch's file may not be ready."""
        handle = self.handles.get(fh) if fh >= handles.FIRST else None
        if isinstance(handle, Handle):
            return handle.poll(poll_handle.notify if poll_handle is not None else None)
        return READY

    @answer
    async def flush(self, fh: FileHandleT) -> None:
        """FLUSH: some descriptor of the open file is closed."""
        if fh < handles.FIRST:
            return
        handle = self.handles.get(fh)
        if isinstance(handle, InboxHandle | Handle):
            await handle.flush()

    @answer
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """FSYNC."""
        if fh < handles.FIRST:
            return
        handle = self.handles.get(fh)
        if isinstance(handle, InboxHandle):
            await handle.fsync()

    @answer
    async def release(self, fh: FileHandleT) -> None:
        """RELEASE: the last descriptor is gone."""
        if fh < handles.FIRST:
            self.kernel.released(fh)
            return
        handle = self.handles.drop(fh)
        if isinstance(handle, InboxHandle | Handle):
            await handle.release()

    def _writer(self, fh: int) -> InboxHandle | Handle:
        handle = self.handles.get(fh) if fh >= handles.FIRST else None
        if not isinstance(handle, InboxHandle | Handle):
            raise FUSEError(errno.EBADF)
        return handle

    def _opened(self, handle: InboxHandle | OpenInboxFile) -> FileHandleT:
        number = self.handles.add(handle)
        if isinstance(handle, InboxHandle):
            handle.numbered(number)
        return FileHandleT(number)

    def _with_handle(self, handle: Handle) -> FileInfo:
        number = FileHandleT(self.handles.add(handle))
        return FileInfo(fh=number, direct_io=True, keep_cache=False, nonseekable=not handle.seekable)

    # -- directories

    @answer
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """OPENDIR."""
        return FileHandleT(self.handles.add(OpenDirectory(inode, self.tree.snapshot_of(inode))))

    @answer
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """READDIRPLUS. Names only (see ``entries``), so that a listing leaves nothing behind in the kernel."""
        handle = self.handles.get(fh)
        if not isinstance(handle, OpenDirectory):
            raise FUSEError(errno.ENOTDIR)
        only = entries.NameOnly()
        for name, inode, place in self.tree.entries(handle.inode, start_id, handle.entries):
            if self._names_only or name in (b".", b".."):
                entry = only.set(inode, nodes.format_of(inode))
                if not pyfuse3.readdir_reply(token, FileNameT(name), entry, place):
                    return
            elif not await self._reply_in_full(token, name, inode, place):
                return

    async def _reply_in_full(self, token: pyfuse3.ReaddirToken, name: bytes, inode: int, place: int) -> bool:
        self.kernel.hold(inode)
        entry = await self._attributes(inode)
        if self.kernel.changes(inode):
            entry.attr_timeout = 0
        taken = pyfuse3.readdir_reply(token, FileNameT(name), entry, place)
        if not taken:
            self.kernel.forget([(inode, 1)])
        return taken

    @answer
    async def releasedir(self, fh: FileHandleT) -> None:
        """RELEASEDIR."""
        self.handles.drop(fh)

    @answer
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """FSYNCDIR: what is listed is durable."""

    # -- changes of names

    @answer
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """UNLINK."""
        if branch := self.branches.of(parent_inode):
            await branch.remove(parent_inode, name, directory=False)
            return
        self.door.unlink(parent_inode, name)

    @answer
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        """RENAME: from a scratch name to a final one it commits."""
        if len(name_new) > NAME_BYTES_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        await self.door.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @answer
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """MKNOD: never."""
        raise self._never(parent_inode)

    @answer
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        """MKDIR: only where a branch has a meaning for it."""
        if branch := self.branches.of(parent_inode):
            inode = await branch.mkdir(parent_inode, name)
            return await self._attributes(inode)
        raise self._never(parent_inode)

    @answer
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """RMDIR: only where a branch has a meaning for it."""
        if branch := self.branches.of(parent_inode):
            await branch.remove(parent_inode, name, directory=True)
            return
        raise self._never(parent_inode)

    @answer
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """SYMLINK: never."""
        raise self._never(parent_inode)

    @answer
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """LINK: never. A second name for what commits by its name would be a second meaning."""
        raise self._never(new_parent_inode)

    @answer
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """READLINK: only in branches."""
        if branch := self.branches.of(inode):
            return FileNameT(await branch.readlink(inode))
        raise FUSEError(errno.ENOENT)

    def _never(self, directory: int) -> FUSEError:
        return FUSEError(errno.EPERM if directory in AREAS else errno.EROFS)

    # -- extended attributes, statfs

    @answer
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """GETXATTR. The kernel asks for security attributes before writes, so the usual answer is the quick one."""
        if not name.startswith(XATTR):
            raise FUSEError(pyfuse3.ENOATTR)
        value = self._xattrs(inode).get(name)
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @answer
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """LISTXATTR."""
        return [pyfuse3.XAttrNameT(name) for name in self._xattrs(inode)]

    @answer
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """SETXATTR: programs that copy attributes take EOPNOTSUPP calmly."""
        raise self._no_xattr(inode)

    @answer
    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        """REMOVEXATTR."""
        raise self._no_xattr(inode)

    def _no_xattr(self, inode: int) -> FUSEError:
        inbox = nodes.kind_of(inode) is Kind.INBOX_FILE or inode in AREAS
        return FUSEError(errno.EOPNOTSUPP if inbox else errno.EROFS)

    def _xattrs(self, inode: int) -> dict[bytes, bytes]:
        kind, number = nodes.kind_of(inode), nodes.number_of(inode)
        verdict = None
        if kind is Kind.INBOX_FILE:
            verdict = self.door.verdict(self.door.file(number))
        elif kind in (Kind.RECEIPT, Kind.DRY_RECEIPT):
            verdict = self.receipts.text(self.contents.answer(number)).verdict
        if verdict is not None:
            return {XATTR + b"status": verdict[0].encode(), XATTR + b"code": verdict[1].encode()}
        index = self.contents.index_of(inode)
        return self.query.attributes(index) if index >= 0 else {}

    @answer
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """STATFS: the numbers of the file system that the store is on."""
        there = os.statvfs(self.ledger.layout.root)
        data = pyfuse3.StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(data, name, getattr(there, name))
        data.f_namemax = NAME_BYTES_MAX
        return data
