"""Builds the windows around splice sites again, from the genes of AUGUSTUS' tutorial."""

import argparse
import gzip
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tristate.bio.data.complement import reverse_complement
from tristate.bio.data.fasta import write_fasta
from tristate.bio.data.genbank import read_genbank
from tristate.bio.data.genes import FLANK, Gene, header

PACKAGE = "augustus-doc"
FOLDER = "usr/share/doc/augustus/tutorial/results"
# So many decoys make 59 of 100 windows one; they are drawn three to an intron first.
DECOYS = {"train": 5026, "test": 1070}
DECOYS_PER_INTRON = 3
SEED = 0


def read_genes(path: Path) -> list[Gene]:
    """The genes in a GenBank file with one CDS a record, each on its own strand."""
    genes = []
    for name, sequence, features in read_genbank(path):
        (cds,) = [feature for feature in features if feature.kind == "CDS"]
        exons = cds.pieces
        if cds.minus:
            sequence, length = reverse_complement(sequence), len(sequence)
            exons = [(length - end, length - start) for start, end in reversed(exons)]
        genes.append(Gene(name, sequence, exons))
    return genes


def draw_decoys(genes: list[Gene], count: int) -> set[tuple[str, int]]:
    """Names and positions of ``count`` decoys, three to an intron before the last are dropped."""
    draw = np.random.default_rng(SEED)
    found = []
    for gene in genes:
        wanted = DECOYS_PER_INTRON * (len(gene.exons) - 1)
        positions = draw.choice(gene.decoys(), wanted, replace=False)
        found += [(gene.name, int(position)) for position in positions]
    return {found[i] for i in draw.permutation(len(found))[:count]}


def windows(genes: list[Gene], decoys: set[tuple[str, int]]) -> str:
    """The table, gene by gene and in order of position."""
    lines = ["sequence\tlabel\tgene\tposition"]
    for gene in genes:
        labels = dict.fromkeys(gene.donors, "donor") | dict.fromkeys(gene.acceptors, "acceptor")
        labels |= {position: "decoy" for name, position in decoys if name == gene.name}
        for position, label in sorted(labels.items()):
            window = gene.window(position)
            if len(window) == 2 * FLANK:
                lines.append(f"{window}\t{label}\t{gene.name}\t{position}")
    return "\n".join(lines) + "\n"


def build(source: Path, out: Path) -> None:
    """Write the tables, and the genes to draw training decoys from, to ``out``."""
    for part, count in DECOYS.items():
        genes = read_genes(source / f"genes.gb.{part}")
        table = windows(genes, draw_decoys(genes, count))
        (out / f"{part}.tsv.gz").write_bytes(gzip.compress(table.encode(), 9, mtime=0))
        if part == "train":
            records = {header(gene): gene.sequence for gene in genes}
            fasta = write_fasta(records)
            (out / "train_genes.fa.gz").write_bytes(gzip.compress(fasta, 9, mtime=0))


def main() -> None:
    """Fetch the Debian package, or take the folder given, and build."""
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Without SOURCE the Debian package {PACKAGE} is fetched with "
        "apt-get and unpacked (not installed)."
    )
    parser.add_argument(
        "source", nargs="?", type=Path, help="folder of genes.gb.train and genes.gb.test"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    args = parser.parse_args()
    if args.source:
        build(args.source, args.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        build(Path(folder) / FOLDER, args.out)


if __name__ == "__main__":
    main()
