"""Genes with their introns, and the places in them that only look like splice sites."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tristate.bio.data.fasta import Genome
from tristate.bio.data.files import read_lines
from tristate.core.errors import UserError

FLANK = 40  # bases of a window on either side of a junction


class Gene(NamedTuple):
    """A piece of a chromosome that holds one gene, read on the gene's own strand.

    Attributes:
        name: unique name of the piece.
        sequence: upper-case letters.
        exons: coding pieces, ``(start, end)`` 0-based and half-open, in order.
    """

    name: str
    sequence: str
    exons: list[tuple[int, int]]

    @property
    def donors(self) -> list[int]:
        """First base of each intron."""
        return [end for _, end in self.exons[:-1]]

    @property
    def acceptors(self) -> list[int]:
        """First base after each intron."""
        return [start for start, _ in self.exons[1:]]

    def window(self, position: int) -> str:
        """The letters from 40 before ``position`` to 40 after it."""
        return self.sequence[position - FLANK : position + FLANK]

    def decoys(self) -> np.ndarray:
        """Every position that looks like a junction and is none, in order.

        These have GT behind them, as a donor does, or AG in front, as an acceptor, and room for a
        window.
        """
        letters = np.frombuffer(self.sequence.encode("ascii"), np.uint8)
        first, second = letters[:-1], letters[1:]
        donors = np.flatnonzero((first == ord("G")) & (second == ord("T")))
        acceptors = np.flatnonzero((first == ord("A")) & (second == ord("G"))) + 2
        found = np.union1d(donors, acceptors)
        found = found[(found >= FLANK) & (found <= len(letters) - FLANK)]
        return np.setdiff1d(found, [*self.donors, *self.acceptors])


def header(gene: Gene) -> str:
    """Name and exons as the first line of a FASTA record."""
    return f"{gene.name} cds={','.join(f'{start}-{end}' for start, end in gene.exons)}"


def read_genes(path: Path) -> list[Gene]:
    """The genes in a FASTA file whose records begin as :func:`header` writes them.

    Raises:
        UserError: the file is missing or damaged, or a record tells no exons that lie in it.
    """
    genome, genes = Genome(path, fold_case=True), []
    for number, line in read_lines(path):
        if not line.startswith(">"):
            continue
        match = re.fullmatch(r">(\S+) cds=(\d+-\d+(?:,\d+-\d+)*)\s*", line)
        if not match:
            raise UserError(f"{path}:{number} must be >NAME cds=START-END,..., got {line[:60]!r}")
        name = match[1]
        exons = [tuple(map(int, exon.split("-"))) for exon in match[2].split(",")]
        edges = [0, *(edge for exon in exons for edge in exon), genome.lengths[name]]
        if edges != sorted(edges):
            raise UserError(f"{path}:{number} has exons out of order or beyond {name}'s end")
        genes.append(Gene(name, genome.fetch(name), exons))  # pyright: ignore[reportArgumentType]
    return genes
