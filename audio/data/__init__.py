"""Recordings: packaged sets, manifests of clips, and what is done to them on the way."""
