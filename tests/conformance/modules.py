"""How each module of the golden vectors is called, and which of its insides bear which golden name.

An adapter takes our module with the golden parameters in it, the file and its inputs by name, and
returns outputs by the golden names. A module of one input and one output needs no line here.
"""

from collections.abc import Callable

from torch import Tensor, nn

from tests.conformance.golden import Golden

Adapter = Callable[[nn.Module, Golden, dict[str, Tensor]], dict[str, Tensor]]


def only_output(module: nn.Module, golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """One tensor in, one tensor out, whatever the original calls them."""
    (x,) = inputs.values()
    (name,) = golden.group("output")
    return {name: module(x)}


MODULES: dict[str, Adapter] = {}
