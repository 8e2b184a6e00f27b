"""The classifier of clips: a front end, a stack of any mixer, a pool."""

from typing import Any, Literal

from torch import Tensor

from tristate.audio.models.fronts import FRONTS
from tristate.core.arguments import call
from tristate.core.backbone import Backbone, rescale_outputs
from tristate.core.plain import plain_stack


class AudioClassifier(Backbone):
    """Puts clips of any length into classes: waveforms ``(B, L)`` or features ``(B, F, T)``.

    With ``seq_idx`` a batch of unequal clips, padded behind their ends, gives each of them what it
    gives alone, where the mixer packs.

    Args:
        front: name in :data:`tristate.audio.models.fronts.FRONTS`.
        front_args: its arguments beside ``in_chans``, ``d_model`` and ``sample_rate``.
        in_chans: rows of the features; 1 for waveforms.
        sample_rate: of the waveforms, in Hz.
        num_classes: outputs of the head; 0 for none.
        global_pool: ``"avg"``, ``"max"``, ``"last"`` or ``""``.
        d_model: width of the tokens.
        n_layers: blocks.
        mixer: name in :data:`tristate.core.mixers.MIXERS`.
        mixer_args: its arguments beside ``d_model``.
        norm: ``"rms"`` or ``"layer"``.
        norm_eps: added to the norms' variance.
        drop_rate: dropout in front of the head.
        drop_path_rate: stochastic depth, from 0 at the first block to this at the last.

    Raises:
        KeyError: there is no such front end or mixer.
        ValueError: ``norm`` is unknown, or a part does not know an argument, or refuses it.
    """

    def __init__(
        self,
        front: str = "gabor",
        front_args: dict[str, Any] | None = None,
        in_chans: int = 1,
        sample_rate: int = 16_000,
        num_classes: int = 1000,
        global_pool: str = "avg",
        d_model: int = 64,
        n_layers: int = 3,
        mixer: str = "bimamba",
        mixer_args: dict[str, Any] | None = None,
        norm: Literal["rms", "layer"] = "rms",
        norm_eps: float = 1e-5,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stack = plain_stack(
            d_model,
            n_layers,
            mixer=mixer,
            mixer_args=mixer_args,
            norm=norm,
            norm_eps=norm_eps,
            drop_path_rate=drop_path_rate,
        )
        super().__init__(
            stack, d_model, num_classes=num_classes, global_pool=global_pool, drop_rate=drop_rate
        )
        self.in_chans, self.sample_rate = in_chans, sample_rate
        self.front = call(FRONTS[front], in_chans, d_model, sample_rate, **(front_args or {}))
        rescale_outputs(stack)

    def embed(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, ceil(L / stride), d_model)`` of clips, and their ``seq_idx``."""
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[1] != self.in_chans:
            wanted = (
                "waveforms (B, L)" if self.in_chans == 1 else f"features (B, {self.in_chans}, T)"
            )
            raise ValueError(f"{wanted} are wanted, got the shape {tuple(x.shape)}")
        return self.front(x, seq_idx)
