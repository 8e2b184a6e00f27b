"""Mandarin syllables spoken by one voice: the files, and the script that builds them."""
