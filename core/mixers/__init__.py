"""Sequence mixers, by name: a new one is a file here and a line in the table."""

from tristate.kernels.registry import Registry

MIXERS = Registry(
    "mixer",
    {
        "bimamba": "tristate.core.mixers.bimamba:BiMamba",
        "mamba": "tristate.core.mixers.mamba:Mamba",
    },
)
