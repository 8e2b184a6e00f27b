"""IDX, the file format of MNIST and its kin."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tristate.core.errors import UserError

_UINT8 = 0x08


def read_idx(path: Path) -> Tensor:
    """The array in an IDX file of bytes, plain or gzip-compressed, as uint8.

    Layout: two zero bytes, the type (0x08 for bytes), the number of axes, each axis' length as a
    big-endian uint32, then the values.

    Raises:
        UserError: the file is missing, cut short or something else.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UINT8:
        raise UserError(f"{path} is no IDX file of bytes: it begins with {raw[:4].hex(' ')}")
    start = 4 + 4 * raw[3]
    shape = np.frombuffer(raw[4:start], ">u4").astype(int).tolist()
    if len(raw) - start != np.prod(shape, dtype=int):
        raise UserError(
            f"{path} promises {shape} values and holds {len(raw) - start} bytes of them: "
            "fetch it again"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy())


def write_idx(path: Path, array: Tensor) -> None:
    """Write ``array`` (uint8) as an IDX file, compressed when the name ends in ``.gz``.

    The same array gives the same bytes: no time stamp and no name enters the compressed file.
    """
    if array.dtype != torch.uint8:
        raise ValueError(f"array must be uint8, got {array.dtype}")
    head = bytes([0, 0, _UINT8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    raw = head + array.numpy().tobytes()
    path.write_bytes(gzip.compress(raw, 9, mtime=0) if path.suffix == ".gz" else raw)


def find_idx(folder: Path, name: str) -> Path:
    """The path of ``name`` in ``folder``, plain or with ``.gz``.

    Raises:
        UserError: neither is there.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"there is neither {name} nor {name}.gz in {folder}: name the folder of the IDX files"
    )
