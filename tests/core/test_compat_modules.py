"""The modules under mamba-ssm's names against the golden vectors, by the original state dicts."""

# The packages are there only while they are enabled: no type checker finds them.
# pyright: reportMissingImports=false

import importlib
import json
from pathlib import Path

import pytest
import torch

from tests.conformance.compare import GRADIENT_FLOOR, relative_errors, weighted_sum
from tests.conformance.golden import Golden, cast, load
from tests.core import compat_models
from tristate import compat
from tristate.core.compat.generation import InferenceParams

# Entry of a golden file -> where code would import it from.
CLASSES = {
    "mamba.Mamba": "mamba_ssm.modules.mamba_simple:Mamba",
    "vim.Mamba": "mamba_ssm.modules.mamba_simple:Mamba",
    "mamba2.Mamba2": "mamba_ssm.modules.mamba2:Mamba2",
    "mamba2.Mamba2Simple": "mamba_ssm.modules.mamba2_simple:Mamba2Simple",
}
FOLDERS = {"mamba": "core", "mamba2": "core", "vim": "vision/vim"}
DTYPES = [torch.float64, torch.float32]


@pytest.fixture(autouse=True)
def enabled():
    compat.enable()
    yield
    compat.disable()


def files(golden: Path, entry: str) -> list[Golden]:
    """All golden files of that entry."""
    index = json.loads((golden / "index.json").read_text())
    rows = index if isinstance(index, list) else index["files"]
    paths = [golden / row["file"] for row in rows if row.get("entry") == entry]
    assert paths, f"no golden file of {entry}"
    return [load(path) for path in paths]


def tolerance(file: Golden, dtype: torch.dtype) -> dict[str, float]:
    return file.tolerance[str(dtype).removeprefix("torch.")]


def load_exactly(module, file, dtype):
    """The module with the original's parameters under the original's names."""
    module = module.to(dtype).eval()
    module.load_state_dict({name: cast(x, dtype) for name, x in file.group("state").items()})
    return module


def check_gradients(module, file, dtype, outputs, inputs):
    weighted_sum(file, outputs).backward()
    grads = {f"state.{name}": p.grad for name, p in module.named_parameters()}
    grads |= {f"input.{name}": x.grad for name, x in inputs.items()}
    wanted = {name: g for name, g in file.group("grad").items() if name in grads}
    assert wanted.keys() == grads.keys() & file.group("grad").keys() and wanted
    errors = relative_errors(grads, wanted, GRADIENT_FLOOR)
    assert max(errors.values()) <= tolerance(file, dtype)["grad"], (file.path.name, errors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entry", CLASSES)
def test_a_mixer_takes_the_original_state_as_it_is(golden, entry, dtype):
    module_name, _, name = CLASSES[entry].partition(":")
    make = getattr(importlib.import_module(module_name), name)
    for file in files(golden, entry):
        mixer = load_exactly(make(**file.config), file, dtype)
        ((name, x),) = file.inputs().items()
        x = cast(x, dtype).requires_grad_()
        (out,) = file.cotangents.values()
        outputs = {out: mixer(x)}
        wanted = {out: file.tensors[f"output.{out}"]}
        errors = relative_errors(outputs, wanted)
        assert max(errors.values()) <= tolerance(file, dtype)["output"], (file.path.name, errors)
        check_gradients(mixer, file, dtype, outputs, {name: x})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entry", ["mamba.Mamba", "mamba2.Mamba2"])
@torch.no_grad()
def test_states_are_those_of_the_original(golden, entry, dtype):
    module_name, _, name = CLASSES[entry].partition(":")
    make = getattr(importlib.import_module(module_name), name)
    for file in files(golden, entry):
        mixer = load_exactly(make(**file.config, layer_idx=3), file, dtype)
        x = cast(file.inputs()["x"], dtype)
        kept = InferenceParams(max_seqlen=x.shape[1], max_batch_size=len(x))
        outputs = {"y_prefill": mixer(x, inference_params=kept)}
        outputs["conv_state"], outputs["ssm_state"] = kept.key_value_memory_dict[3]

        conv, ssm = mixer.allocate_inference_cache(len(x), x.shape[1])
        steps = [mixer.step(x[:, t : t + 1], conv, ssm)[0] for t in range(x.shape[1])]
        outputs |= {"y_step": torch.cat(steps, 1), "step_conv_state": conv, "step_ssm_state": ssm}
        wanted = {name: y for name, y in file.group("output").items() if name != "y"}
        # Some files of Mamba-2 have no steps: the original can't take them. Ours equal the whole.
        wanted.setdefault("y_step", outputs["y_prefill"])
        errors = relative_errors(outputs, wanted)
        assert max(errors.values()) <= tolerance(file, dtype)["output"], (file.path.name, errors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", ["vim_midcls_div2_odd_rect", "vim_bimamba_v1", "vim_layerscale_biases"]
)
def test_code_like_vims_runs_unchanged(golden, name, dtype):
    file = load(golden / FOLDERS["vim"] / f"{name}.safetensors")
    model = load_exactly(compat_models.VisionMamba(file.config), file, dtype)
    image = cast(file.inputs()["image"], dtype).requires_grad_()
    outputs = {"logits": model(image)}
    errors = relative_errors(outputs, {"logits": file.tensors["output.logits"]})
    assert errors["logits"] <= tolerance(file, dtype)["output"]
    check_gradients(model, file, dtype, outputs, {"image": image})


@pytest.mark.parametrize("dtype", DTYPES)
def test_code_like_caduceus_runs_unchanged(golden, dtype):
    file = load(golden / "bio/caduceus/ph_mlm.safetensors")
    model = load_exactly(compat_models.Caduceus(file.config), file, dtype)
    logits = model(file.inputs()["input_ids"])
    errors = relative_errors({"logits": logits}, {"logits": file.tensors["output.logits"]})
    assert errors["logits"] <= tolerance(file, dtype)["output"]


def test_a_two_sided_mixer_keeps_no_state():
    from mamba_ssm import Mamba

    mixer = Mamba(8, bimamba_type="v2", layer_idx=0)
    x = torch.randn(1, 3, 8)
    with pytest.raises(ValueError, match="bimamba_type='v2'.*no state"):
        mixer(x, inference_params=InferenceParams(3, 1))
    with pytest.raises(ValueError, match="no state"):
        mixer.step(x[:, :1], torch.zeros(1), torch.zeros(1))


def test_wrong_options_are_refused():
    from mamba_ssm import Mamba, Mamba2

    with pytest.raises(ValueError, match="'none', 'v1' or 'v2', got 'v3'"):
        Mamba(8, bimamba_type="v3")
    with pytest.raises(ValueError, match="'random' or 'constant', got 'zero'"):
        Mamba(8, dt_init="zero")
    with pytest.raises(TypeError, match="if_diveide_out"):
        Mamba(8, if_diveide_out=True)
    with pytest.raises(ValueError, match="16 channels don't make heads of 5"):
        Mamba2(8, headdim=5)
    with pytest.raises(ValueError, match="process_group"):
        Mamba2(8, headdim=4, process_group=object())
    mixer = Mamba(8)
    with pytest.raises(ValueError, match="layer_idx"):
        mixer(torch.randn(1, 3, 8), inference_params=InferenceParams(3, 1))
    with pytest.raises(ValueError, match="one position, got 2"):
        mixer.step(torch.randn(1, 2, 8), *mixer.allocate_inference_cache(1, 8))


def test_step_sizes_start_in_their_range():
    from mamba_ssm import Mamba, Mamba2

    for bias in (Mamba(64).dt_proj.bias, Mamba2(64, headdim=2).dt_bias):
        dt = torch.nn.functional.softplus(bias)
        assert 0.00099 < dt.min() < 0.01 < dt.max() < 0.101
    assert (Mamba(8, dt_init="constant").dt_proj.weight == 1).all()


def test_sequences_end_to_end_equal_sequences_apart():
    from mamba_ssm import Mamba2

    mixer = Mamba2(16, d_state=4, headdim=8, ngroups=2, layer_idx=0)
    lengths = [5, 1, 9]
    parts = [torch.randn(1, n, 16) for n in lengths]
    bounds = torch.tensor([0, 5, 6, 15], dtype=torch.int32)
    whole = torch.cat(parts, 1)
    seq_idx = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).int()[None]
    apart = torch.cat([mixer(part) for part in parts], 1)
    torch.testing.assert_close(mixer(whole, cu_seqlens=bounds), apart)
    torch.testing.assert_close(mixer(whole, seq_idx=seq_idx), apart)
    torch.testing.assert_close(mixer(whole.flatten(0, 1), seqlen=15, seq_idx=seq_idx), apart[0])
    # Each sequence leaves states of its own, and generation goes on from them.
    kept = InferenceParams(10, 3)
    with torch.no_grad():
        torch.testing.assert_close(mixer(whole, cu_seqlens=bounds, inference_params=kept), apart)
        kept.seqlen_offset = 1
        more = torch.randn(3, 1, 16)
        longer = [
            mixer(torch.cat([a, b[None]], 1))[:, -1:] for a, b in zip(parts, more, strict=True)
        ]
        torch.testing.assert_close(mixer(more, inference_params=kept), torch.cat(longer))


def test_half_precision_runs_with_its_state_in_float32():
    from mamba_ssm import Mamba

    mixer = Mamba(16)
    x = torch.randn(2, 33, 16)
    wanted = mixer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = mixer(x)
    assert got.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: the projections round inputs and outputs of about 1.
    torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Mamba", {"bimamba_type": "v2", "if_divide_out": True}),
        ("Mamba2", {"headdim": 8}),
    ],
)
def test_a_mixer_compiles_without_a_graph_break(name, options):
    import mamba_ssm

    mixer = getattr(mamba_ssm, name)(16, d_state=4, **options)
    x = torch.randn(2, 21, 16)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), mixer(x))
