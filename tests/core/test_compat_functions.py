"""Functions under mamba-ssm's and causal-conv1d's names, where they do more than our kernels."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from tristate.core.compat import (
    block,
    conv,
    gated_norm,
    generation,
    hub,
    norm,
    references,
    scan,
    ssd,
)
from tristate.core.compat.mamba import Mamba

# Float32 on two paths that round differently.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_the_convolution_writes_its_final_states_where_asked():
    x, weight = torch.randn(2, 5, 9), torch.randn(5, 4)
    room = torch.zeros(2, 5, 3)
    out, states = conv.causal_conv1d_fn(
        x, weight, return_final_states=True, final_states_out=room, activation="silu"
    )
    assert states is room
    torch.testing.assert_close(room, x[:, :, -3:])
    again, states = conv.causal_conv1d_fn(x, weight, None, None, None, True, None, "silu")
    torch.testing.assert_close(again, out)
    torch.testing.assert_close(states, room)


def test_states_in_rows_of_a_larger_tensor():
    places = torch.tensor([4, -1, 0])
    x, weight = torch.randn(3, 5), torch.randn(5, 4)
    states = torch.randn(6, 5, 4)
    ours = states.clone()
    out = conv.causal_conv1d_update(x, ours, weight, conv_state_indices=places)
    used = states[places[[0, 2]]]
    wanted = conv.causal_conv1d_update(x[[0, 2]], used, weight)
    torch.testing.assert_close(out[[0, 2]], wanted)
    torch.testing.assert_close(ours[[4, 0]], used)
    assert (out[1] == 0).all() and torch.equal(ours[[1, 2, 3, 5]], states[[1, 2, 3, 5]])

    dt, B, C, z = torch.randn(3, 5), torch.randn(3, 2), torch.randn(3, 2), torch.randn(3, 5)
    A, D, states = -torch.rand(5, 2), torch.randn(5), torch.randn(6, 5, 2)
    ours = states.clone()
    out = scan.selective_state_update(
        ours, x, dt, A, B, C, D, z, dt_softplus=True, state_batch_indices=places
    )
    used, rows = states[places[[0, 2]]], [0, 2]
    wanted = scan.selective_state_update(
        used, x[rows], dt[rows], A, B[rows], C[rows], D, z[rows], dt_softplus=True
    )
    torch.testing.assert_close(out[rows], wanted)
    torch.testing.assert_close(ours[[4, 0]], used)
    assert (out[1] == 0).all() and torch.equal(ours[[1, 2, 3, 5]], states[[1, 2, 3, 5]])


def test_states_of_sequences_end_to_end():
    x = torch.randn(8, 3)
    got = conv.causal_conv1d_varlen_states(x, torch.tensor([0, 2, 8]), 4)
    first = torch.cat([torch.zeros(2, 3), x[:2]])
    torch.testing.assert_close(got, torch.stack([first, x[4:]]).transpose(1, 2))


def mixer_weights(d_inner=6, rank=2, n_states=3, complex_A=False):
    """A mixer's weights, by :func:`scan_inputs`' names."""
    width = n_states * (2 if complex_A else 1)
    A = -torch.rand(d_inner, n_states) - 0.1
    return {
        "conv1d_weight": torch.randn(d_inner, 1, 4),
        "conv1d_bias": torch.randn(d_inner),
        "x_proj_weight": torch.randn(rank + 2 * width, d_inner) / 3,
        "delta_proj_weight": torch.randn(d_inner, rank),
        "A": A + 1j * torch.randn(d_inner, n_states) if complex_A else A,
    }


@pytest.mark.parametrize("bimamba_type", ["none", "v1", "v2"])
def test_the_mixers_functions_are_the_mixer(bimamba_type):
    mixer = Mamba(8, d_state=4, bias=True, bimamba_type=bimamba_type)
    x = torch.randn(2, 11, 8)
    xz = mixer.in_proj(x).transpose(1, 2)

    def inner(suffix):
        parts = [getattr(mixer, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj")]
        weights = (parts[0].weight, parts[0].bias, parts[1].weight, parts[2].weight)
        A = -getattr(mixer, f"A{suffix}_log").exp()
        rest = {"D": getattr(mixer, f"D{suffix}"), "delta_bias": parts[2].bias}
        return weights, A, rest

    weights, A, rest = inner("")
    out = (mixer.out_proj.weight, mixer.out_proj.bias)
    if bimamba_type == "none":
        got = scan.mamba_inner_fn(xz, *weights, *out, A, **rest)
    elif bimamba_type == "v1":
        got = scan.bimamba_inner_fn(xz, *weights, *out, A, -mixer.A_b_log.exp(), **rest)
    else:
        ahead = scan.mamba_inner_fn_no_out_proj(xz, *weights, A, **rest)
        weights, A, rest = inner("_b")
        back = scan.mamba_inner_fn_no_out_proj(xz.flip(2), *weights, A, **rest).flip(2)
        got = mixer.out_proj((ahead + back).transpose(1, 2))
    torch.testing.assert_close(got, mixer(x), **CLOSE)


def test_projected_weights_of_a_complex_scan_are_pairs():
    weights = mixer_weights(complex_A=True)
    bias = torch.randn(6)
    u, _, B, C = scan.scan_inputs(torch.randn(2, 6, 5), **weights, B_proj_bias=bias)
    projected = F.linear(u.transpose(1, 2), weights["x_proj_weight"])
    for n in range(3):
        for t in range(5):
            for part in range(2):
                got_B, got_C = B[:, n, 2 * t + part], C[:, n, 2 * t + part]
                torch.testing.assert_close(
                    got_B, projected[:, t, 2 + 2 * n + part] + bias[2 * n + part]
                )
                torch.testing.assert_close(got_C, projected[:, t, 8 + 2 * n + part])
    xz = torch.randn(2, 12, 5)
    assert scan.mamba_inner_fn_no_out_proj(xz, **weights).shape == (2, 6, 5)


def test_given_weights_are_not_projected():
    weights, given = mixer_weights(), torch.randn(6, 3)
    inputs = scan.scan_inputs(torch.randn(2, 6, 5), **weights, B=given, C=given)
    assert inputs.B is given and inputs.C is given


@pytest.mark.parametrize("rms", [False, True])
def test_a_norm_with_all_its_additions(rms):
    x, residual, x1 = torch.randn(3, 2, 4, 8).unbind()
    weight, bias, weight1, bias1 = torch.randn(4, 8).unbind()
    scale = torch.randn(2, 4)

    def plain(total, weight, bias):
        if rms:
            return F.rms_norm(total, (8,), weight, 1e-6) + bias
        return F.layer_norm(total, (8,), weight, bias, 1e-6)

    out, total = norm.layer_norm_fn(
        x, weight, bias, residual, rowscale=scale, prenorm=True, is_rms_norm=rms
    )
    torch.testing.assert_close(total, x * scale[..., None] + residual)
    torch.testing.assert_close(out, plain(total, weight, bias), **CLOSE)

    out, second, total = norm.layer_norm_fn(
        x, weight, bias, residual, x1, weight1, bias1, prenorm=True, is_rms_norm=rms
    )
    torch.testing.assert_close(total, x + x1 + residual)
    torch.testing.assert_close(out, plain(total, weight, bias), **CLOSE)
    torch.testing.assert_close(second, plain(total, weight1, bias1), **CLOSE)

    out, mask, mask1 = norm.layer_norm_fn(
        x, weight, bias, x1=x1, dropout_p=0.3, is_rms_norm=rms, return_dropout_mask=True
    )
    total = (x * mask + x1 * mask1) / 0.7
    assert not mask.all() and not mask1.all()
    torch.testing.assert_close(out, plain(total, weight, bias), **CLOSE)

    linear = torch.randn(3, 8)
    out, total = norm.layer_norm_linear_fn(
        x, weight, bias, linear, None, residual, prenorm=True, is_rms_norm=rms
    )
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(out, plain(total, weight, bias) @ linear.T, **CLOSE)

    with pytest.raises(ValueError, match="rowscale"):
        norm.layer_norm_fn(x, weight, bias, x1=x1, rowscale=scale)


def test_the_residual_is_wide_where_asked():
    x = torch.randn(2, 8).bfloat16()
    layer = norm.RMSNorm(8, dtype=torch.bfloat16)
    out, total = layer(x, prenorm=True, residual_in_fp32=True)
    assert (out.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert layer(x, x, prenorm=True, residual_in_fp32=True)[1].dtype == torch.bfloat16
    dropping = norm.RMSNorm(8, dropout_p=0.5)
    x = torch.randn(64, 8)
    assert not torch.equal(dropping(x), dropping(x))
    torch.testing.assert_close(dropping.eval()(x), F.rms_norm(x, (8,), eps=1e-5), **CLOSE)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("rms", [True, False])
def test_a_gated_norm_in_groups(rms, before):
    layer = (gated_norm.RMSNorm if rms else gated_norm.LayerNorm)(8, 1e-5, 4, before)
    torch.nn.init.normal_(layer.weight)
    bias = torch.zeros(8)
    if layer.bias is not None:
        bias = torch.nn.init.normal_(layer.bias)
    x, z = torch.randn(2, 3, 5, 8).unbind()
    value = x if before else x * F.silu(z)
    parts = [
        F.rms_norm(part, (4,), eps=1e-5) if rms else F.layer_norm(part, (4,))
        for part in value.chunk(2, -1)
    ]
    wanted = torch.cat(parts, -1) * layer.weight + bias
    wanted = wanted * F.silu(z) if before else wanted
    torch.testing.assert_close(layer(x, z), wanted, **CLOSE)
    if rms:
        got = gated_norm.rmsnorm_fn(x, layer.weight, torch.ones(8), z, 1e-5, 4, before)
        more = F.silu(z) if before else 1
        torch.testing.assert_close(got, wanted + more, **CLOSE)
    layer.reset_parameters()
    assert (layer.weight == 1).all()


@pytest.mark.parametrize("fused", [True, False])
def test_a_block_adds_normalises_and_mixes(fused):
    def mixer(width):
        return TimesTwo()

    one = block.Block(8, mixer, lambda width: torch.nn.Linear(width, width), fused_add_norm=fused)
    x, residual = torch.randn(2, 1, 3, 8).unbind()
    out, total = one(x, residual)
    hidden = 2 * F.layer_norm(x + residual, (8,))
    torch.testing.assert_close(total, hidden + x + residual, **CLOSE)
    assert one.mlp is not None
    torch.testing.assert_close(out, one.mlp(F.layer_norm(total, (8,))), **CLOSE)
    with pytest.raises(TypeError, match="Identity"):
        block.Block(8, mixer, torch.nn.Identity, torch.nn.Identity, fused_add_norm=True)


class TimesTwo(torch.nn.Module):
    def forward(self, x, inference_params=None):
        return 2 * x


def test_the_states_after_each_of_several_sequences():
    x, dt = torch.randn(1, 9, 4, 3), torch.rand(1, 9, 4)
    A, B, C = -torch.rand(4), torch.randn(1, 9, 2, 5), torch.randn(1, 9, 2, 5)
    bounds = torch.tensor([0, 4, 9])
    first = torch.randn(1, 4, 3, 5)
    out, last, states = ssd.mamba_chunk_scan_combined(
        x,
        dt,
        A,
        B,
        C,
        8,
        initial_states=first,
        cu_seqlens=bounds,
        return_final_states=True,
        return_varlen_states=True,
    )
    apart = [
        ssd.mamba_chunk_scan_combined(
            x[:, part],
            dt[:, part],
            A,
            B[:, part],
            C[:, part],
            8,
            initial_states=state,
            return_final_states=True,
        )
        for part, state in ((slice(0, 4), first), (slice(4, 9), None))
    ]
    torch.testing.assert_close(out, torch.cat([y for y, _ in apart], 1))
    torch.testing.assert_close(states, torch.cat([state for _, state in apart]))
    torch.testing.assert_close(last, states[1:])
    with pytest.raises(ValueError, match="cu_seqlens"):
        ssd.mamba_chunk_scan_combined(x, dt, A, B, C, 8, return_varlen_states=True)
    with pytest.raises(ValueError, match="headdim"):
        ssd.mamba_split_conv1d_scan_combined(x, B, None, A, A, A, 8)


def test_references_compute_in_float64_and_by_loops():
    x, weight, first = torch.randn(2, 5, 9), torch.randn(5, 4), torch.randn(2, 5, 3)
    out, states = references.causal_conv1d_ref(x, weight, None, first, True, None, "silu")
    fast, fast_states = conv.causal_conv1d_fn(x, weight, None, None, first, True, None, "silu")
    torch.testing.assert_close(out, fast, **CLOSE)
    torch.testing.assert_close(states, fast_states)
    inputs = (x, torch.rand(2, 5, 9), -torch.rand(5, 3), torch.randn(2, 3, 9), torch.randn(5, 3))
    exact = references.selective_scan_ref(*(i.double() for i in inputs))
    for got in (references.selective_scan_ref(*inputs), scan.selective_scan_fn(*inputs)):
        torch.testing.assert_close(got.double(), exact, **CLOSE)
    # A gradient flows through the loops even where the fast kernels have none: a second one.
    torch.autograd.gradgradcheck(
        references.selective_scan_ref, [i[..., :3].double().requires_grad_() for i in inputs]
    )


class Letters(generation.GenerationMixin, torch.nn.Module):
    """Three Mamba layers over an alphabet of ten."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 8)
        self.layers = torch.nn.ModuleList([Mamba(8, d_state=4, layer_idx=k) for k in range(3)])
        self.head = torch.nn.Linear(8, 10)

    def forward(self, input_ids, position_ids=None, inference_params=None, num_last_tokens=0):
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = x + layer(x, inference_params=inference_params)
        return SimpleNamespace(logits=self.head(x)[:, -num_last_tokens:])


def test_generation_goes_on_from_its_states():
    model = Letters()
    ids = torch.randint(10, (2, 5))
    whole = ids
    for _ in range(7):
        whole = torch.cat([whole, model(whole, num_last_tokens=1).logits.argmax(-1)], 1)
    assert torch.equal(model.generate(ids, 12), whole)
    # Each limit at its narrowest leaves the likeliest only.
    for limits in ({"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}):
        assert torch.equal(model.generate(ids, 12, top_k=0, **limits), whole)
    result = model.generate(ids, 12, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(result.sequences, whole) and len(result.scores) == 7
    ends = int(whole[0, 5])
    assert model.generate(ids[:1], 12, eos_token_id=ends).shape[1] == 6
    drawn = generation.sample(torch.zeros(1000, 10), top_k=3)
    assert len(drawn.unique()) == 3


def test_a_local_folder_is_read_like_a_repository(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 8}))
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    assert hub.load_config_hf(str(tmp_path)) == {"d_model": 8}
    state = hub.load_state_dict_hf(str(tmp_path), dtype=torch.bfloat16)
    assert state["weight"].dtype == torch.bfloat16
    with pytest.raises(OSError, match="no_such"):
        hub.load_config_hf(str(tmp_path / "no_such"))
