"""Splice sites of Drosophila melanogaster: windows of 80 bases, and the genes they come from."""
