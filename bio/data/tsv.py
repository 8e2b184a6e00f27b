"""Labelled windows as a table: one sequence a line, with its label and what else is known."""

from pathlib import Path
from typing import NamedTuple

from tristate.bio.data.fasta import BASES, IUPAC
from tristate.bio.data.files import read_lines
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

_LETTERS = (BASES + IUPAC).decode() + (BASES + IUPAC).decode().lower()
_DELETE = str.maketrans("", "", _LETTERS)


class Labelled(NamedTuple):
    """A window and its label.

    Attributes:
        sequence: its letters, in the case of the file.
        label: name of its class.
        group: what it must not be parted from, such as its gene; the sequence itself by default.
    """

    sequence: str
    label: str
    group: str


def read_tsv(path: str | Path, *, group: str | None = None) -> list[Labelled]:
    """The rows of a table with tabs between its columns, plain or compressed.

    The first line names the columns: ``sequence`` and ``label`` have to be there; others are
    passed over.

    Args:
        path: the file.
        group: the column that tells what belongs together.

    Raises:
        UserError: the file is missing or empty, a column is missing, or a line is short, has an
            empty field or a letter that is no base, with its number.
    """
    lines = read_lines(path)
    number, first = next(lines)
    columns = first.rstrip("\r\n").split("\t")
    wanted = ["sequence", "label", *([group] if group else [])]
    for name in wanted:
        if name not in columns:
            raise UserError(f"{path}:{number} has no column {name!r}: {nearest(name, columns)}")
    places = [columns.index(name) for name in wanted]
    rows = []
    for number, line in lines:
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != len(columns):
            raise UserError(
                f"{path}:{number} has {len(fields)} columns, its first line {len(columns)}"
            )
        sequence, label, *rest = (fields[place].strip() for place in places)
        if not sequence or not label:
            raise UserError(f"{path}:{number} has an empty {'label' if sequence else 'sequence'}")
        strange = sequence.translate(_DELETE)
        if strange:
            raise UserError(
                f"{path}:{number} holds {strange[0]!r}, which is no base: wanted A, C, G, T, N or "
                f"one of {', '.join(IUPAC.decode())}"
            )
        rows.append(Labelled(sequence, label, rest[0] if rest else sequence))
    if not rows:
        raise UserError(f"{path} names its columns and holds no window")
    return rows
