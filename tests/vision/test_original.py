"""Released Vim checkpoints: every key has its place, full size."""

import json

import pytest
import timm
import torch

from tristate.core.original import Unsupported
from tristate.vision.original import from_original

LAYOUTS = {
    "vim_tiny_midclstok": "vim_tiny_patch16_224",
    "vim_small_midclstok": "vim_small_patch16_224",
    "vim_base_midclstok": "vim_base_patch16_224",
}
SMALL = {"img_size": 32, "patch_size": 8, "stride": 8, "embed_dim": 16, "depth": 2}
RELEASED = {
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "final_pool_type": "mean",
    "if_abs_pos_embed": True,
    "bimamba_type": "v2",
    "if_cls_token": True,
    "if_divide_out": True,
    "use_middle_cls_token": True,
}


def original_state(module, convert):
    """A random state dict in the original's layout: our keys led back through the rules."""
    state = {}
    for ours, value in module.state_dict().items():
        theirs = ours.replace("stack.blocks.", "layers.").replace("stack.norm.", "norm_f.")
        theirs = theirs.replace(".ahead.", ".").replace(".scale", ".mixer.gamma")
        if ".back." in theirs:
            theirs = theirs.replace(".back.A_log", ".A_b_log").replace(".back.D", ".D_b")
            for part in ("conv", "x_proj", "dt_proj"):
                theirs = theirs.replace(f".back.{part}.", f".{part}_b.")
        theirs = theirs.replace(".conv.", ".conv1d.").replace(".conv_b.", ".conv1d_b.")
        value = torch.randn_like(value)
        state[theirs] = value[:, None] if theirs.endswith(("1d.weight", "1d_b.weight")) else value
    return state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_maps_one_to_one(golden, layout):
    page = json.loads((golden / "vision/layouts" / f"{layout}.json").read_text())
    with torch.device("meta"):
        module, convert = from_original("vim.VisionMamba", page["constructor"])
        state = {k: torch.empty(shape) for k, (shape, _) in page["keys"].items()}
    ours = convert(state)
    want = {k: v.shape for k, v in module.state_dict().items()}
    assert {k: v.shape for k, v in ours.items()} == want
    assert len(ours) == len(state) == page["num_keys"]
    assert sum(p.numel() for p in module.parameters()) == page["num_parameters"]
    # The name registered with timm is that same model.
    with torch.device("meta"):
        registered = timm.create_model(LAYOUTS[layout])
    assert {k: v.shape for k, v in registered.state_dict().items()} == want
    assert registered.pretrained_cfg["hf_hub_id"] == page["location"]["repo_id"]
    assert registered.pretrained_cfg["hf_hub_filename"] == page["location"]["filename"]


def test_a_released_file_loads_through_timm(tmp_path):
    """The layout of the released .pth, under its `model` key, as a local overlay."""
    module, convert = from_original("vim.VisionMamba", SMALL | RELEASED | {"num_classes": 1000})
    state = original_state(module, convert)
    torch.save({"model": state}, tmp_path / "vim.pth")
    model = timm.create_model(
        "vim_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "vim.pth"), "hf_hub_id": None},
        img_size=32,
        patch_size=8,
        d_model=16,
        n_layers=2,
    ).eval()
    module.load_state_dict(convert(state))
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(image), module.eval()(image))


def test_pretrained_fits_other_sizes_classes_and_channels(tmp_path):
    module, convert = from_original("vim.VisionMamba", SMALL | RELEASED | {"num_classes": 1000})
    torch.save({"model": original_state(module, convert)}, tmp_path / "vim.pth")
    model = timm.create_model(
        "vim_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "vim.pth"), "hf_hub_id": None},
        img_size=(48, 64),
        patch_size=8,
        d_model=16,
        n_layers=2,
        num_classes=7,
        in_chans=1,
    ).eval()
    assert model(torch.randn(1, 1, 48, 64)).shape == (1, 7)
    assert model.pos_embed.shape == (1, 6 * 8 + 1, 16)


def test_gradients_reach_the_originals_keys():
    module, convert = from_original("vim.VisionMamba", SMALL | RELEASED | {"num_classes": 3})
    state = {k: v.requires_grad_() for k, v in original_state(module, convert).items()}
    image = torch.randn(1, 3, 32, 32)
    torch.func.functional_call(module, convert(state), (image,)).sum().backward()
    assert all(v.grad is not None for v in state.values())


def test_what_has_no_place_is_named():
    _, convert = from_original("vim.VisionMamba", SMALL | RELEASED)
    with pytest.raises(KeyError, match="rope.freqs_cos"):
        convert({"rope.freqs_cos": torch.zeros(1)})
    with pytest.raises(Unsupported, match="if_rope=False"):
        from_original("vim.VisionMamba", SMALL | {"if_rope": True})
    with pytest.raises(Unsupported, match="img_sise"):
        from_original("vim.VisionMamba", {"img_sise": 32})
    with pytest.raises(KeyError, match="vim.VisionMamba"):
        from_original("vim.VisionMamab", {})
