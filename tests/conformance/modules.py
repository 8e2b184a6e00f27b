"""How each module of the golden vectors is called, and which of its insides bear which golden name.

An adapter takes our module with the golden parameters in it, the file and its inputs by name, and
returns outputs by the golden names. A module of one input and one output needs no line here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.conformance.golden import Golden

Adapter = Callable[[Any, Golden, dict[str, Tensor]], dict[str, Tensor]]


def only_output(module: nn.Module, golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """One tensor in, one tensor out, whatever the original calls them."""
    (x,) = inputs.values()
    (name,) = golden.group("output")
    return {name: module(x)}


def _mamba(module: Any, golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mixer whole, with its state, and step by step."""
    x = inputs["x"]
    batch, length, _ = x.shape
    before = module.init_state(batch, dtype=x.dtype)
    if length > 1:
        _, before = module.forward_state(x[:, :-1])
    prefill, after = module.forward_state(x)
    outputs = {"y": module(x), "y_prefill": prefill, **_mamba_state("", before, after)}

    steps, state = [], module.init_state(batch, dtype=x.dtype)
    for t in range(length):
        before = state
        step, state = module.step(x[:, t], before)
        steps.append(step)
    return {
        **outputs,
        "y_step": torch.stack(steps, 1),
        **_mamba_state("step_", before, state),
    }


def _mamba_state(prefix: str, before: Any, after: Any) -> dict[str, Tensor]:
    # The original keeps d_conv inputs, one more than a next step can see.
    window = torch.cat([before.conv, after.conv[:, :, -1:]], 2)
    return {f"{prefix}conv_state": window, f"{prefix}ssm_state": after.scan}


def _vim(module: Any, golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The classifier, its features, its patches, and what each block returns."""
    outputs: dict[str, Tensor] = {}

    def keep_patches(_module: nn.Module, _args: Any, patches: Tensor) -> None:
        outputs["patch_embed"] = patches

    def keep_block(index: int) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: Any, pair: tuple[Tensor, Tensor]) -> None:
            outputs[f"block{index}.hidden"], outputs[f"block{index}.residual"] = pair

        return keep

    handles = [module.patch_embed.register_forward_hook(keep_patches)]
    for index, block in enumerate(module.stack.blocks):
        handles.append(block.register_forward_hook(keep_block(index)))
    tokens = module.forward_features(inputs["image"])
    for handle in handles:
        handle.remove()
    outputs["features"] = module.forward_head(tokens, pre_logits=True)
    outputs["logits"] = module.forward_head(tokens)
    return outputs


MODULES: dict[str, Adapter] = {
    "mamba.Mamba": _mamba,
    "vim.VisionMamba": _vim,
}
