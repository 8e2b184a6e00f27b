"""What is measured: an op at a size, and what a user would take instead. A line a case."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tristate.kernels.registry import Registry


@dataclass(frozen=True)
class Case:
    """An op on given inputs.

    Attributes:
        what: the op.
        shape: sizes by name.
        inputs: tensors by argument name; floating point ones get gradients.
        ours: the op as a function of the inputs, with the fast backend.
        peers: what computes the same, or does the same job, by name.
        n_elements: channels times steps times states of a scan; 0 where arithmetic is no bound.
        directions: what is timed: ``"forward"``, ``"forward+backward"``.
        floor: where it is not the arithmetic of a scan, a call that does the least of the work.
        once: too long to repeat: called a single time, and then the floor is reading the inputs at
            each of its ``L`` steps.
    """

    what: str
    shape: dict[str, int]
    inputs: dict[str, Tensor]
    ours: Callable[..., Tensor]
    peers: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
    n_elements: int = 0
    directions: Sequence[str] = ("forward", "forward+backward")
    floor: Callable[[], object] | None = None
    once: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs."""
        return sum(x.numel() * x.element_size() for x in self.inputs.values())


CASES = Registry(
    "op to measure",
    {
        "selective_scan": "tristate.recipes.bench.selective:cases",
        "bidirectional_selective_scan": "tristate.recipes.bench.cross:sequences",
        "selective_scan_2d": "tristate.recipes.bench.cross:maps",
        "linear_scan": "tristate.recipes.bench.linear:cases",
        "ssd_scan": "tristate.recipes.bench.ssd:cases",
        "gated_delta_rule": "tristate.recipes.bench.delta:cases",
        "linear_attention": "tristate.recipes.bench.attention:cases",
        "wkv": "tristate.recipes.bench.rwkv:cases",
        "causal_conv1d": "tristate.recipes.bench.conv:cases",
        "long_conv": "tristate.recipes.bench.longconv:cases",
        "fft_or_direct": "tristate.recipes.bench.crossover:cases",
        "ssm_kernel": "tristate.recipes.bench.ssm_kernel:cases",
        "state_space": "tristate.recipes.bench.state_space:cases",
        "add_norm": "tristate.recipes.bench.norm:cases",
        "length": "tristate.recipes.bench.length:cases",
        "online": "tristate.recipes.bench.online:cases",
        "transformers": "tristate.recipes.bench.drop_in:cases",
    },
)


def cases(only: Iterable[str], quick: bool) -> Iterator[Any]:
    """The cases of the named ops; the small ones alone where it must be ``quick``."""
    for name in only or CASES:
        yield from CASES[name](quick)
