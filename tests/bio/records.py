"""Small GenBank files to test with."""

from pathlib import Path

import torch


def genbank(name: str, sequence: str, features: list[tuple[str, str]]) -> str:
    """A record as GenBank writes it."""
    table = "".join(
        f'     {kind:<16}{place}\n                     /note="a (b)\n                     1..2"\n'
        for kind, place in features
    )
    lines = [f"{i + 1:9} {sequence[i : i + 60].lower()}" for i in range(0, len(sequence), 60)]
    return (
        f"LOCUS       {name} {len(sequence)} bp DNA\nDEFINITION  One.\n"
        f"FEATURES             Location/Qualifiers\n{table}ORIGIN\n" + "\n".join(lines) + "\n//\n"
    )


def letters(length: int, seed: int) -> str:
    draw = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[i] for i in draw.tolist())


def annotated(path: Path, length: int) -> Path:
    """Eleven contigs, each with a gene on 21 to 60 and one backwards on 101 to 140 of 200 bases.

    Args:
        path: where to write.
        length: of a contig; the places above grow with it.
    """
    by = length // 200
    features = [
        ("source", f"1..{length}"),
        ("gene", f"<{20 * by + 1}..{60 * by}"),
        ("CDS", f"<{20 * by + 1}..{60 * by}"),
        ("CDS", f"complement({100 * by + 1}..>{140 * by})"),
        ("tRNA", f"{170 * by + 1}"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(genbank(f"c{i}", letters(length, i), features) for i in range(1, 12)))
    return path
