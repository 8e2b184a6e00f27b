"""Backbones over DNA."""
