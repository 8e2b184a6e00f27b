"""The genome of Escherichia coli K-12 MG1655: 4,639,675 bases."""

from pathlib import Path

EMBEDDED = Path(__file__).parent / "MG1655-K12.fa.gz"
