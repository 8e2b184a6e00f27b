"""Vim: Vision Mamba, a plain stack of two-way selective mixers over image patches."""

from typing import Any, Literal

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from tristate.core.backbone import POOLS, Backbone, rescale_outputs
from tristate.core.norm import AddOnly
from tristate.core.plain import NormName, plain_stack
from tristate.vision.models.patches import ConvEmbed, PatchEmbed
from tristate.vision.models.positions import (
    Place,
    insert_token,
    resample_positions,
    split_token,
)


def _middle(num_patches: int) -> int:
    return num_patches // 2


def _head(num_patches: int) -> int:
    return 0


STEMS = {"patch": PatchEmbed, "conv": ConvEmbed}
PLACES: dict[str, Place | None] = {"middle": _middle, "head": _head, "none": None}


class Vim(Backbone):
    """Image classifier: patches, a class token among them, blocks of a two-way mixer.

    Any image size runs: the positional embedding is resampled when the grid differs from that of
    ``img_size``. Images whose sides are no multiple of the stride lose the last rows or columns.

    Args:
        img_size: side, or (height, width), that the positional embedding is made for, in pixels.
        patch_size: side of a patch, or (height, width), in pixels.
        stride: distance between patches in pixels; the patch size when absent.
        in_chans: channels of the image.
        num_classes: outputs of the head; 0 for none.
        global_pool: ``"token"`` (the class token), ``"avg"``, ``"max"``, ``"last"`` or ``""``;
            all but the first look at the patches only.
        d_model: width of the tokens.
        n_layers: blocks.
        stem: ``"patch"``, one filter a patch, or ``"conv"``, a few small convolutions: see
            :mod:`tristate.vision.models.patches`.
        class_token: where the class token stands among the patches: ``"middle"``, ``"head"``, or
            ``"none"`` for no such token.
        pos_embed: add a learnt positional embedding (it covers the class token too).
        mixer: name in :data:`tristate.core.mixers.MIXERS`.
        mixer_args: its arguments beside ``d_model``.
        norm: ``"rms"``, ``"layer"``, ``"batch"`` or ``"scale"``.
        norm_eps: added to the norms' variance.
        prenorm: norm in front of each block, ``x + f(norm(x))``; else behind, ``norm(x + f(x))``.
        residual_in_fp32: keep the residual stream in float32 under half precision.
        layer_scale: initial factor per channel on each mixer's output; None for no such factor.
        drop_rate: dropout in front of the head.
        drop_path_rate: stochastic depth, from 0 at the first block to this at the last.

    Raises:
        ValueError: the image is smaller than a patch, or the class token is asked for where there
            is none.

    Source: Zhu et al. 2024, https://arxiv.org/abs/2401.09417; https://github.com/hustvl/Vim
    (Apache-2.0).
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        stride: int | tuple[int, int] | None = None,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        d_model: int = 192,
        n_layers: int = 24,
        stem: Literal["patch", "conv"] = "patch",
        class_token: Literal["middle", "head", "none"] = "middle",
        pos_embed: bool = True,
        mixer: str = "bimamba",
        mixer_args: dict[str, Any] | None = None,
        norm: NormName = "rms",
        norm_eps: float = 1e-5,
        prenorm: bool = True,
        residual_in_fp32: bool = True,
        layer_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if class_token not in PLACES:
            raise ValueError(f"class_token is 'middle', 'head' or 'none', got {class_token!r}")
        place = PLACES[class_token]
        stack = plain_stack(
            d_model,
            n_layers,
            mixer=mixer,
            mixer_args=mixer_args,
            norm=norm,
            norm_eps=norm_eps,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
            layer_scale=layer_scale,
            drop_path_rate=drop_path_rate,
        )
        super().__init__(
            stack,
            d_model,
            num_classes=num_classes,
            global_pool=global_pool,
            drop_rate=drop_rate,
            pools=("token", *POOLS) if place else POOLS,
        )
        self.place = place
        self.num_prefix_tokens = 1 if place else 0
        self.patch_embed = STEMS[stem](img_size, patch_size, stride, in_chans, d_model)
        tokens = self.patch_embed.num_patches + self.num_prefix_tokens
        self.cls_token = nn.Parameter(torch.empty(1, 1, d_model)) if place else None
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, d_model)) if pos_embed else None
        reduction = self.patch_embed.stride[0]
        self.feature_info = [
            {"module": f"stack.blocks.{i}", "num_chs": d_model, "reduction": reduction}
            for i in range(n_layers)
        ]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values of tokens and positions, and output projections scaled by depth."""
        for tokens in (self.cls_token, self.pos_embed):
            if tokens is not None:
                nn.init.trunc_normal_(tokens, std=0.02)
        rescale_outputs(self.stack)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must not touch, beside norms and biases."""
        own = {n for n in ("cls_token", "pos_embed") if getattr(self, n) is not None}
        return super().no_weight_decay() | own

    def split_tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Class token ``(B, 1, D)`` (None without one) and patches ``(B, M, D)`` of ``x``."""
        return split_token(x, self.place) if self.place else (None, x)

    def embed(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, None]:
        """Tokens ``(B, M + 1, D)`` of images ``(B, C, H, W)``, with their positions added."""
        grid = self.patch_embed.grid_of(*x.shape[-2:])
        x = self.patch_embed(x)
        if self.cls_token is not None and self.place:
            x = insert_token(x, self.cls_token.expand(x.shape[0], -1, -1), self.place)
        if self.pos_embed is None:
            return x, None
        old = self.patch_embed.grid_size
        if grid == old:
            return x + self.pos_embed, None
        return x + resample_positions(self.pos_embed, old, grid, self.place), None

    def pool(self, x: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """One vector ``(B, d_model)`` from all tokens, as ``global_pool`` says."""
        if not self.global_pool:
            return x
        token, patches = self.split_tokens(x)
        if self.global_pool == "token" and token is not None:
            return token[:, 0]
        return super().pool(patches, seq_idx)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Features and what stands in the stream after the chosen blocks.

        Args:
            x: images ``(B, C, H, W)``.
            indices: blocks to look at: all, the last n, or these.
            return_prefix_tokens: give ``(patches, class token)`` for each instead of the patches.
            norm: pass each through the last norm.
            stop_early: stop after the last block that is looked at.
            output_fmt: patches as a map ``(B, D, H', W')`` or as ``(B, M, D)``.
            intermediates_only: leave out the features.

        Returns:
            The list of intermediates, or ``(features, intermediates)``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is 'NCHW' or 'NLC', got {output_fmt!r}")
        taken, last = feature_take_indices(len(self.stack.blocks), indices)
        grid = self.patch_embed.grid_of(*x.shape[-2:])
        maps, hidden, residual = [], torch.empty(0), None
        walk = self.stack.walk(self.embed(x)[0], n_blocks=last + 1 if stop_early else None)
        for i, (hidden, residual) in enumerate(walk):
            if i in taken:
                stream = self.stack.norm(hidden, residual)[0] if norm else hidden + residual
                maps.append(self._as_map(stream, grid, output_fmt, return_prefix_tokens))
        if intermediates_only:
            return maps
        return self.stack.norm(hidden, residual)[0], maps

    def _as_map(
        self, x: Tensor, grid: tuple[int, int], output_fmt: str, with_token: bool
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        token, patches = self.split_tokens(x)
        if output_fmt == "NCHW":
            patches = patches.transpose(1, 2).unflatten(2, grid).contiguous()
        return (patches, token) if with_token else patches

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the blocks behind the last index, and what else the intermediates don't need."""
        taken, last = feature_take_indices(len(self.stack.blocks), indices)
        self.stack.blocks = self.stack.blocks[: last + 1]
        if prune_norm:
            self.stack.norm = AddOnly()
        if prune_head:
            self.reset_classifier(0, "")
        return taken
