"""Files that are whole at any moment."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vae_ext.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file that takes the place of `path` once it is complete and on the disk.

    Of several processes that write `path` at once one waits for the other, and the last one's file stays.

    Raises:
        UserError: it cannot be written, what `path` held before being untouched; or it was, and may not survive a power
            cut.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _sole_writer_of(temporary) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError.
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    _sync_folder(path)


@contextmanager
def _sole_writer_of(path: Path) -> Iterator[BinaryIO]:
    """The file, empty, and locked against other processes; removed where what is done inside fails.

    One name, so that what a killed process left is written over by the next.
    """
    while True:
        with open(path, "wb", opener=_open_whole) as file:
            # Where there are no locks, there is one writer at a time or none of this holds.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had the lock before may have given the file its proper name.
            if not _is_at(path, file):
                continue
            file.truncate()
            try:
                yield file
            except BaseException:
                if _is_at(path, file):
                    path.unlink()
                raise
            return


def _open_whole(path: str, flags: int) -> int:
    """Without emptying the file, to which another process may be writing."""
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the file still has the name that it was opened by."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync_folder(path: Path) -> None:
    """The new name is on the disk, too."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(
            f"{path} is written, but its folder cannot be synced ({error.strerror or error}): after a power cut it may"
            " be what it was before"
        ) from error
