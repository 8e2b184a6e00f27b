"""Runs code written for mamba-ssm and causal-conv1d on this package's kernels."""

from tristate.core.compat import disable, enable

__all__ = ["disable", "enable"]
