"""Models as code for mamba-ssm writes them, with the original parameter names.

They import what :func:`tristate.compat.enable` offers: build them while it is enabled.
"""

# The packages are there only while they are enabled: no type checker finds them.
# pyright: reportMissingImports=false

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class VisionMamba(nn.Module):
    """Vim with a class token in the middle, from the original's ``config``."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from mamba_ssm.modules.mamba_simple import Block, Mamba
        from mamba_ssm.ops.triton.layernorm import RMSNorm

        width, patch = config["embed_dim"], config["patch_size"]
        size = config["img_size"]
        height, breadth = size if isinstance(size, list) else (size, size)
        n_patches = (height // patch) * (breadth // patch)
        mixer = partial(
            Mamba,
            d_state=config.get("d_state", 16),
            bimamba_type=config["bimamba_type"],
            if_divide_out=config["if_divide_out"],
            init_layer_scale=config.get("init_layer_scale"),
            **config.get("ssm_cfg", {}),
        )
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, n_patches + 1, width))
        block = partial(Block, fused_add_norm=True, residual_in_fp32=True)
        norm = partial(RMSNorm, eps=1e-5)
        self.layers = nn.ModuleList(
            [block(width, mixer, norm_cls=norm) for _ in range(config["depth"])]
        )
        self.norm_f = norm(width)
        self.head = nn.Linear(width, config["num_classes"])

    def forward(self, image: Tensor) -> Tensor:
        from mamba_ssm.ops.triton.layernorm import rms_norm_fn

        x = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        middle = x.shape[1] // 2
        token = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([x[:, :middle], token, x[:, middle:]], 1) + self.pos_embed
        residual = None
        for layer in self.layers:
            x, residual = layer(x, residual)
        x = rms_norm_fn(
            x,
            self.norm_f.weight,
            self.norm_f.bias,
            residual=residual,
            eps=self.norm_f.eps,
            residual_in_fp32=True,
        )
        return self.head(x[:, middle])


class TwoWays(nn.Module):
    """Caduceus' mixer: two of mamba-ssm's, the second on the reversed sequence."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__()
        from mamba_ssm import Mamba

        self.mamba_fwd = Mamba(width, **options)
        self.mamba_rev = Mamba(width, **options)
        self.mamba_rev.in_proj.weight = self.mamba_fwd.in_proj.weight
        self.mamba_rev.out_proj.weight = self.mamba_fwd.out_proj.weight

    def forward(self, x: Tensor, inference_params: Any = None) -> Tensor:
        return self.mamba_fwd(x) + self.mamba_rev(x.flip(1)).flip(1)


class Caduceus(nn.Module):
    """Caduceus-Ph as a masked language model, from the original's ``config``."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        from mamba_ssm.modules.block import Block
        from mamba_ssm.ops.triton.layer_norm import RMSNorm

        width, n_tokens = config["d_model"], config["vocab_size_padded"]
        mixer = partial(TwoWays, **config["ssm_cfg"])
        norm = partial(RMSNorm, eps=config["norm_epsilon"])
        backbone = nn.Module()
        backbone.embeddings = nn.Module()
        backbone.embeddings.word_embeddings = nn.Embedding(n_tokens, width)
        block = partial(Block, mlp_cls=nn.Identity, norm_cls=norm, fused_add_norm=True)
        backbone.layers = nn.ModuleList([block(width, mixer) for _ in range(config["n_layer"])])
        backbone.norm_f = norm(width)
        self.caduceus = nn.ModuleDict({"backbone": backbone})
        self.lm_head = nn.Linear(width, n_tokens, bias=False)
        self.lm_head.weight = backbone.embeddings.word_embeddings.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        backbone: Any = self.caduceus["backbone"]
        x, residual = backbone.embeddings.word_embeddings(input_ids), None
        for layer in backbone.layers:
            x, residual = layer(x, residual)
        return self.lm_head(backbone.norm_f(x, residual=residual))
