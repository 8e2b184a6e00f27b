"""The plain model of sequences, of any mixer: an embedding, a stack, an answer at each position."""

from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.backbone import Backbone, rescale_outputs
from tristate.core.context import Context
from tristate.core.mixer import Mixer
from tristate.core.plain import NormName, plain_stack
from tristate.core.variants import Variant, Variants
from tristate.kernels.registry import Registry


class Tokens(Backbone):
    """A model of sequences of ids, or of vectors of numbers.

    Args:
        vocab_size: ids ``(B, L)`` int64 are below it; inputs ``(B, L, vocab_size)`` of numbers go
            through the same table as a linear map.
        num_classes: outputs of the head; 0 for none.
        global_pool: ``""`` for an answer at each position, ``"avg"``, ``"max"`` or ``"last"`` for
            one of the whole.
        d_model: width of the tokens.
        n_layers: blocks.
        mixer: name in :data:`tristate.core.mixers.MIXERS`.
        mixer_args: its arguments beside ``d_model``.
        norm: ``"rms"``, ``"layer"``, ``"batch"`` or ``"scale"``.
        norm_eps: added to the norms' variance.
        prenorm: norm in front of each block, ``x + f(norm(x))``; else behind, ``norm(x + f(x))``.
        residual_in_fp32: keep the residual stream in float32 under half precision.
        drop_rate: dropout in front of the head.
        drop_path_rate: stochastic depth, from 0 at the first block to this at the last.
        n_positions: so many learnt vectors are added to the first positions, for attention that has
            no other word of order: then no sequence may be longer, nor be read in pieces. 0 for
            none.

    Raises:
        ValueError: an argument is out of range or unknown to the mixer.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        global_pool: str = "",
        d_model: int = 64,
        n_layers: int = 2,
        mixer: str = "mamba",
        mixer_args: dict[str, Any] | None = None,
        norm: NormName = "rms",
        norm_eps: float = 1e-5,
        prenorm: bool = True,
        residual_in_fp32: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        n_positions: int = 0,
    ) -> None:
        if n_positions < 0:
            raise ValueError(f"n_positions must be at least 0, got {n_positions}")
        stack = plain_stack(
            d_model,
            n_layers,
            mixer=mixer,
            mixer_args=mixer_args,
            norm=norm,
            norm_eps=norm_eps,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
            drop_path_rate=drop_path_rate,
        )
        super().__init__(
            stack, d_model, num_classes=num_classes, global_pool=global_pool, drop_rate=drop_rate
        )
        self.embedding = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.positions = None
        if n_positions:
            self.positions = nn.Parameter(0.5 * torch.randn(n_positions, d_model))
        rescale_outputs(stack)

    @property
    def in_pieces(self) -> bool:
        """Whether a sequence may be read piece by piece at constant memory."""
        mixers = [module for module in self.stack.modules() if isinstance(module, Mixer)]
        return self.positions is None and all(
            mixer.memory in ("constant", "window") for mixer in mixers
        )

    def embed(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, L, d_model)``, and ``seq_idx`` as it came."""
        tokens = x @ self.embedding.weight if x.is_floating_point() else self.embedding(x)
        if self.positions is None:
            return tokens, seq_idx
        if x.shape[1] > len(self.positions):
            raise ValueError(
                f"{x.shape[1]} positions, and the model has learnt vectors for "
                f"{len(self.positions)}: raise n_positions"
            )
        return tokens + self.positions[: x.shape[1]], seq_idx

    def forward_state(
        self,
        x: Tensor,
        state: Any | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Any]:
        """As :class:`tristate.core.backbone.Backbone` says.

        Raises:
            ValueError: a sequence goes on from ``state``, and positions are learnt.
        """
        if state is not None and self.positions is not None:
            raise ValueError("with learnt positions a sequence is read whole: no state goes on")
        return super().forward_state(x, state, seq_idx=seq_idx, context=context)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must not touch, beside norms and biases."""
        return super().no_weight_decay() | ({"positions"} if self.positions is not None else set())

    def last_tokens(self, x: Tensor, count: int, piece: int) -> Tensor:
        """The last ``count`` tokens after the last norm, ``(B, count, d_model)``, at little memory.

        Args:
            x: inputs, of any length.
            count: positions that are wanted, at most ``piece``.
            piece: positions that are read at a time where the mixers allow it.
        """
        if not self.in_pieces or x.shape[1] <= piece:
            return self.forward_features(x)[:, -count:]
        state, tokens = None, torch.empty(0)
        for part in x.split(piece, dim=1):
            before = tokens
            tokens, state = self.stack.forward_state(self.embed(part)[0], state)
            if tokens.shape[1] < count:
                tokens = torch.cat([before[:, -count:], tokens], 1)
        return tokens[:, -count:]


ZOO = Variants(
    Registry("model of sequences", {"tokens": "tristate.core.tokens:Tokens"}),
    {"tokens": Variant("tokens", {}, {"classifier": "head", "license": "apache-2.0"})},
)
