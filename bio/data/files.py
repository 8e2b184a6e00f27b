"""Text files as biology keeps them: plain, or compressed with gzip or bgzip."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from tristate.core.errors import UserError

GZIP = b"\x1f\x8b"


def read_bytes(path: str | Path) -> bytes:
    """The content of ``path``, decompressed where it begins as gzip does; bgzip is gzip too.

    Raises:
        UserError: the file is missing, empty or damaged.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if raw.startswith(GZIP):
            raw = gzip.decompress(raw)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: name a file") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from error
    if not raw.strip():
        raise UserError(f"{path} is empty")
    return raw


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of ``path`` that are not blank, each with its number from 1.

    Raises:
        UserError: as :func:`read_bytes`, or the file is no text in UTF-8.
    """
    raw = read_bytes(path)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line} is no text in UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line
