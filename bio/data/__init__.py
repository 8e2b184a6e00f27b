"""Sequence data: genomes, intervals, tokens, windows, and the sets that come with the package."""
