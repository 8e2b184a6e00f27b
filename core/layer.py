"""One mixer with its norm and residual, to stand alone."""

from torch import nn

from tristate.core.block import Block
from tristate.core.norm import AddOnly
from tristate.core.stack import Stack


def residual_layer(mixer: nn.Module, norm: nn.Module, *, prenorm: bool = True) -> Stack:
    """``x + mixer(norm(x))``, or ``norm(x + mixer(x))``: a stack of one block.

    Args:
        mixer: a :class:`tristate.core.mixer.Mixer`, or any map of positions.
        norm: one of :mod:`tristate.core.norm`, which add first.
        prenorm: norm in front of the mixer; else behind the residual.
    """
    if prenorm:
        return Stack([Block(mixer, norm)], AddOnly())
    return Stack([Block(mixer, AddOnly())], norm)
