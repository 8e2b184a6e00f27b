"""A small genome in every form that it may come in."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

ALL_LETTERS = "ACGTNRYSWKMBDHV"


def wrap(records: dict[str, str], width: int = 60, newline: str = "\n") -> bytes:
    lines = []
    for name, sequence in records.items():
        lines += [
            f">{name} and more",
            *(sequence[i : i + width] for i in range(0, len(sequence), width)),
        ]
    return (newline.join(lines) + newline).encode()


def bgzip(raw: bytes, block: int = 200) -> bytes:
    """BGZF: gzip members of their own, each telling its size, and an empty one at the end."""
    out = b""
    for piece in [raw[i : i + block] for i in range(0, len(raw), block)] + [b""]:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(piece) + packer.flush()
        head = b"\x1f\x8b\x08\x04" + b"\0" * 4 + b"\0\xff" + struct.pack("<H", 6)
        head += b"BC\x02\0" + struct.pack("<H", 18 + len(body) + 8 - 1)
        out += head + body + struct.pack("<II", zlib.crc32(piece), len(piece))
    return out


@pytest.fixture(scope="session")
def records() -> dict[str, str]:
    draw = np.random.default_rng(3)
    bases = np.array(list("ACGT" * 8 + ALL_LETTERS + ALL_LETTERS.lower()))
    return {
        name: "".join(draw.choice(bases, length))
        for name, length in {"chr1": 1000, "chr2": 60, "chr3": 421, "tiny": 1}.items()
    }


@pytest.fixture(params=["plain", "gzip", "bgzip", "uneven", "crlf"])
def fasta(request, records, tmp_path) -> Path:
    """The same records in five files."""
    raw = wrap(records)
    if request.param == "gzip":
        raw = gzip.compress(raw)
    elif request.param == "bgzip":
        raw = bgzip(raw)
    elif request.param == "crlf":
        raw = wrap(records, newline="\r\n")
    elif request.param == "uneven":
        raw = b"".join(
            f">{name}\n{s[:7]}\n\n{s[7:100]}\n{s[100:]}\n".encode() for name, s in records.items()
        )
    path = tmp_path / "genome.fa"
    path.write_bytes(raw)
    return path


@pytest.fixture
def write(tmp_path):
    """Writes text to a file of that name and returns the path."""

    def put(name: str, text: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return put
