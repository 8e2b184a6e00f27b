"""FASTA: the sequences of a genome, plain, gzip or bgzip, behind one way to read them."""

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from pyfaidx import Faidx, FastaIndexingError

from tristate.bio.data.bed import Interval, require_inside
from tristate.bio.data.complement import reverse_complement
from tristate.bio.data.files import read_bytes
from tristate.core.errors import UserError

BASES = b"ACGTN"
IUPAC = b"RYSWKMBDHV"
_LETTERS = BASES + IUPAC + (BASES + IUPAC).lower()
_NEWLINES = b"\r\n"
_CHUNK = 1 << 24  # bytes that are checked at once


class Genome:
    """The sequences of a FASTA file by name: the first word of the line that begins with ``>``.

    A plain file is indexed once, by pyfaidx (the ``.fai`` stays beside it where the folder can be
    written to), and read in place, so that genomes larger than the memory work and processes share
    it. A compressed file is read whole, at a byte a base. Every letter is checked on opening.

    Args:
        path: the file.
        fold_case: give lower-case letters (repeats, by custom) as upper-case ones.
        fold_iupac: give letters for several bases as ``N``.

    Attributes:
        lengths: number of bases of each sequence, in the order of the file.

    Raises:
        UserError: the file is missing, empty or damaged, a name stands twice, or a letter is none
            of A, C, G, T, N and IUPAC's others, with line and value.
    """

    def __init__(
        self, path: str | Path, *, fold_case: bool = False, fold_iupac: bool = False
    ) -> None:
        self.path = Path(path)
        self._store = _open(self.path)
        self.lengths: dict[str, int] = self._store.lengths
        self._fold = _folding(fold_case, fold_iupac)

    def fetch(self, chrom: str, start: int = 0, end: int | None = None, strand: str = "+") -> str:
        """Bases ``start`` to ``end`` (0-based, half-open), as they are read on ``strand``.

        On ``"-"`` that is the reverse complement, of IUPAC's letters too.

        Raises:
            UserError: the sequence is not there, or is shorter.
            ValueError: ``strand`` is neither ``"+"`` nor ``"-"``.
        """
        if strand not in ("+", "-"):
            raise ValueError(f"strand must be '+' or '-', got {strand!r}")
        sequence = self.letters(chrom, start, end).tobytes().decode("ascii")
        return sequence if strand == "+" else reverse_complement(sequence)

    def letters(self, chrom: str, start: int = 0, end: int | None = None) -> np.ndarray:
        """Bases ``start`` to ``end`` of the strand ``+`` as ASCII codes, ``(end - start,)`` uint8.

        Raises:
            UserError: as :meth:`fetch`.
        """
        end = self.lengths.get(chrom, start) if end is None else end
        require_inside(Interval(chrom, start, end), self.lengths, str(self.path))
        found = self._store.read(chrom, start, end)
        return np.frombuffer(found.translate(self._fold) if self._fold else found, np.uint8)


def _folding(case: bool, iupac: bool) -> bytes | None:
    """A table for ``bytes.translate``, or None where nothing changes."""
    if not case and not iupac:
        return None
    table = bytearray(range(256))
    if iupac:
        for letter in IUPAC:
            table[letter] = ord("N")
            table[letter + 32] = ord("n")  # lower case
    if case:
        table = bytearray(bytes(table).upper())
    return bytes(table)


def _open(path: Path) -> "_Indexed | _InMemory":
    try:
        with path.open("rb") as file:
            # pyfaidx goes by the name.
            plain = file.read(1) == b">" and path.suffix.lower() not in (".gz", ".bgz")
    except OSError:
        plain = False  # read_bytes tells it
    if plain:
        try:
            return _Indexed(path)
        # Lines of uneven lengths, the index of another file, letters that are no bases: reading
        # the file whole either works or tells the line. OSError: no room for the index.
        except (FastaIndexingError, ValueError, OSError):
            pass
    return _InMemory(path)


class _Indexed:
    """A plain file of even lines, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records = _index(path)
        self.lengths = {name: record.rlen for name, record in self._records.items()}
        self._map()
        for name in self.lengths:
            if not self._is_sound(name):
                raise ValueError(f"{name} in {path} is empty or holds what is no base")

    def _is_sound(self, chrom: str) -> bool:
        length = self.lengths[chrom]
        if not length:
            return False
        end = self._place(chrom, length - 1) + 1
        starts = range(self._place(chrom, 0), end, _CHUNK)
        return not any(_strangers(self._bytes[at : min(at + _CHUNK, end)]) for at in starts)

    def read(self, chrom: str, start: int, end: int) -> bytes:
        if start == end:
            return b""
        lines = self._bytes[self._place(chrom, start) : self._place(chrom, end - 1) + 1]
        return lines.translate(None, _NEWLINES)

    def _place(self, chrom: str, base: int) -> int:
        """Where a base stands in the file, in bytes."""
        record = self._records[chrom]
        return record.offset + base // record.lenc * record.lenb + base % record.lenc

    def _map(self) -> None:
        with self.path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_bytes"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()


def _index(path: Path) -> dict:
    """The index pyfaidx makes, or the one that stands beside ``path`` and is newer."""
    beside = path.with_name(path.name + ".fai")
    if beside.is_file() and beside.stat().st_mtime > path.stat().st_mtime:
        return _read_index(path, beside)
    # Made under another name first: another process may look for it meanwhile.
    folder = path.parent if os.access(path.parent, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fai-") as made:
        index = Path(made) / beside.name
        records = _read_index(path, index)
        if folder:
            os.replace(index, beside)
    return records


def _read_index(path: Path, index: Path) -> dict:
    with Faidx(str(path), indexname=str(index)) as faidx:
        return dict(faidx.index)


class _InMemory:
    """A file read whole."""

    def __init__(self, path: Path) -> None:
        raw = read_bytes(path)
        self._sequences: dict[str, bytes] = {}

        def where(at: int) -> str:
            line = raw.count(b"\n", 0, at) + 1
            return f"{path}:{line}"

        start = len(raw) - len(raw.lstrip())
        if raw[start : start + 1] != b">":
            begin = raw[start : start + 20].split(b"\n")[0].decode("ascii", "replace")
            raise UserError(f"{where(start)} begins with {begin!r}: FASTA begins with > and a name")
        while start < len(raw):
            # The last record's header may be all that is left of the file.
            body = raw.find(b"\n", start) + 1 or len(raw)
            end = raw.find(b"\n>", body - 1) + 1 or len(raw)
            words = raw[start + 1 : body].decode("utf-8", "replace").split()
            if not words or words[0] in self._sequences:
                name = repr(words[0]) if words else "nothing"
                raise UserError(f"{where(start)} names {name}: wanted a name of its own after >")
            sequence = raw[body:end].translate(None, _NEWLINES)
            strangers = _strangers(sequence)
            if strangers:
                at = raw.index(strangers[:1], body)
                raise UserError(
                    f"{where(at)} holds {chr(raw[at])!r}, which is no base: wanted A, C, G, T, N "
                    f"or one of {', '.join(IUPAC.decode())}"
                )
            if not sequence:
                raise UserError(f"{where(start)} has no bases for {words[0]!r}")
            self._sequences[words[0]] = sequence
            start = end
        self.lengths = {name: len(sequence) for name, sequence in self._sequences.items()}

    def read(self, chrom: str, start: int, end: int) -> bytes:
        return self._sequences[chrom][start:end]


def _strangers(chunk: bytes) -> bytes:
    """The bytes of ``chunk`` that are neither bases nor ends of lines."""
    return chunk.translate(None, _LETTERS + _NEWLINES)


def write_fasta(records: dict[str, str], *, width: int = 70) -> bytes:
    """``records``, header line to sequence, as FASTA with ``width`` bases a line."""
    lines = []
    for header, sequence in records.items():
        lines.append(f">{header}")
        lines += [sequence[at : at + width] for at in range(0, len(sequence), width)]
    return ("\n".join(lines) + "\n").encode()
