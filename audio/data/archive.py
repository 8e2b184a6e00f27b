"""Files inside an uncompressed tar, read in place."""

import io
import os
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tristate.core.errors import UserError
from tristate.kernels.registry import nearest


class Place(NamedTuple):
    """Where a member lies in its archive, in bytes."""

    offset: int
    size: int


def split_member(path: Path) -> tuple[Path, str] | None:
    """The archive and the member of ``ARCHIVE.tar/MEMBER``; None where ``path`` is no such path."""
    for parent in path.parents:
        if parent.suffix == ".tar" and parent.is_file():
            return parent, path.relative_to(parent).as_posix()
    return None


def members(archive: Path) -> dict[str, Place]:
    """The files of ``archive`` by name, in the order in which they lie there.

    Raises:
        UserError: it is compressed, damaged or no tar.
    """
    stat = archive.stat()
    return _members(archive, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _members(archive: Path, *changed: int) -> dict[str, Place]:
    # "r:" refuses compression: a member of a compressed archive cannot be read in place.
    try:
        with tarfile.open(archive, "r:") as tar:
            # A sparse member does not lie in one piece.
            files = [member for member in tar if member.isreg() and not member.issparse()]
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{archive} is no uncompressed tar that can be read ({error}): replace or unpack it"
        ) from error
    return {member.name: Place(member.offset_data, member.size) for member in files}


def open_member(archive: Path, name: str) -> io.BufferedReader:
    """The member ``name`` as a file for reading, nothing of which is read yet.

    Raises:
        UserError: there is no such member; the nearest name is in the sentence.
    """
    files = members(archive)
    if name not in files:
        close = nearest(name, files) if len(files) < 1000 else f"it holds {len(files)} files"
        raise UserError(f"there is no file {name} in {archive}; {close}")
    return io.BufferedReader(_Window(archive, files[name]))


class _Window(io.RawIOBase):
    """A stretch of a file as a file of its own, with a handle of its own."""

    def __init__(self, path: Path, place: Place) -> None:
        self._file = path.open("rb", buffering=0)
        self._place, self._at = place, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._place.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        left = max(0, self._place.size - self._at)
        self._file.seek(self._place.offset + self._at)
        count = self._file.readinto(memoryview(buffer)[:left]) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
