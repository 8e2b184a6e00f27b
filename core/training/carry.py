"""Training through time: the state after a batch is where the next one begins."""

from typing import Any

from torch import Tensor, nn

from tristate.core.mixer import detach_state, state_like, state_tensors


class Carry:
    """Hands a model's state from batch to batch, cut from the graph (truncated back-propagation).

    Batches are the pieces of longer sequences, ``pieces`` of each in a row, as a
    :class:`tristate.core.training.loader.Loader` hands them out: every ``pieces``-th begins afresh.

    Args:
        pieces: of a sequence; 1 where batches have nothing to do with each other.

    Source: Williams & Peng 1990, https://doi.org/10.1162/neco.1990.2.4.490.
    """

    def __init__(self, pieces: int = 1) -> None:
        self.pieces = pieces
        self.state: Any = None
        # Of a checkpoint, until the model that tells the form of a state is at hand.
        self._restored: list[Tensor] = []

    def begin(self, batch_idx: int) -> None:
        """Forget the state where a sequence begins; ``batch_idx`` counts from the epoch's start."""
        if batch_idx % self.pieces == 0:
            self.state, self._restored = None, []

    def __call__(self, model: Any, x: Tensor, **options: Any) -> Tensor:
        """``model``'s answer to ``x``, from the state that stands.

        Args:
            model: has ``forward_state`` and ``init_state``.
            x: input, ``(B, L)`` or ``(B, L, D)``.
            **options: of its ``forward_state``.
        """
        if self.pieces == 1:
            return model(x, **options)
        if self._restored:
            tensors = (tensor.to(x.device) for tensor in self._restored)
            self.state, self._restored = state_like(model.init_state(1), iter(tensors)), []
        y, state = model.forward_state(x, self.state, **options)
        self.state = detach_state(state)
        return y

    def tensors(self) -> list[Tensor]:
        """The state's tensors, for a checkpoint."""
        return self._restored or state_tensors(self.state)

    def restore(self, tensors: list[Tensor]) -> None:
        """Go on with the state in a checkpoint."""
        self.state, self._restored = None, list(tensors)


def expect_causal(model: nn.Module, pieces: int) -> None:
    """Refuse a model that has no state where sequences come in pieces.

    Raises:
        ValueError: it is not causal.
    """
    if pieces > 1 and not getattr(model, "causal", False):
        raise ValueError(
            f"sequences come in {pieces} pieces, and {type(model).__name__} has no state to hand "
            "on: name a causal mixer, or set data.pieces to 1"
        )
