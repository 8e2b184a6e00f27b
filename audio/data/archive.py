"""Files inside a tar: read in place, or from memory where the tar is compressed."""

import gzip
import io
import os
import tarfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

PLAIN, PACKED = ".tar", ".tar.gz"


class Place(NamedTuple):
    """Where a member lies in its archive, in bytes; of a compressed one, when unpacked."""

    offset: int
    size: int


def split_member(path: Path) -> tuple[Path, str] | None:
    """The archive and the member of ``ARCHIVE.tar/MEMBER``; None where ``path`` is no such path.

    ``ARCHIVE.tar.gz/MEMBER`` is one, too.
    """
    for parent in path.parents:
        if is_archive(parent):
            return parent, path.relative_to(parent).as_posix()
    return None


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file with the name of a tar that can be read here."""
    return path.name.endswith((PLAIN, PACKED)) and path.is_file()


def members(archive: Path) -> dict[str, Place]:
    """The files of ``archive`` by name, in the order in which they lie there.

    Raises:
        UserError: it is damaged, or no tar, or compressed in another way than its name says.
    """
    return _members(archive, *_version(archive))


def _version(archive: Path) -> tuple[int, int]:
    """What changes with the file."""
    stat = archive.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=16)
def _members(archive: Path, *version: int) -> dict[str, Place]:
    # "r:" refuses compression: a member of a compressed archive cannot be read in place.
    try:
        packed = archive.name.endswith(PACKED)
        content = io.BytesIO(_unpacked(archive, *version)) if packed else None
        with tarfile.open(archive, "r:", fileobj=content) as tar:
            # A sparse member does not lie in one piece.
            files = [member for member in tar if member.isreg() and not member.issparse()]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{archive} is no tar that can be read ({error}): replace or unpack it; "
            f"only *{PACKED} may be compressed"
        ) from error
    return {member.name: Place(member.offset_data, member.size) for member in files}


# A set of short clips is read over and over: the last archive stays in memory, unpacked.
@lru_cache(maxsize=1)
def _unpacked(archive: Path, *version: int) -> bytes:
    return gzip.decompress(archive.read_bytes())


def open_member(archive: Path, name: str) -> io.BufferedReader:
    """The member ``name`` as a file for reading; of a plain tar nothing is read yet.

    Raises:
        UserError: there is no such member; the nearest name is in the sentence.
    """
    files = members(archive)
    if name not in files:
        close = nearest(name, files) if len(files) < 1000 else f"it holds {len(files)} files"
        raise UserError(f"there is no file {name} in {archive}; {close}")
    place = files[name]
    if archive.name.endswith(PACKED):
        content = memoryview(_unpacked(archive, *_version(archive)))
        return io.BufferedReader(io.BytesIO(content[place.offset : place.offset + place.size]))
    return io.BufferedReader(_Window(archive, place))


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
