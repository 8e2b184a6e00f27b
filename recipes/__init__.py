"""Experiments as YAML, and the command ``tristate`` that runs them."""
