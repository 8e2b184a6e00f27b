"""The genome of Escherichia coli K-12 MG1655: 4,639,675 bases."""
