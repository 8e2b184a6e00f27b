"""The kernels and convolutions of the original S4, S4D, DSS, Mega, LongConv and S4ND.

Written out from the originals' stored parameters with nothing but the public functions: what the
layers made of these compute.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.conformance.golden import load
from tests.kernels.laws import error
from tests.kernels.time_invariant import real
from tristate.kernels.backend import available_backends, use_backend
from tristate.kernels.longconv import long_conv, two_sided
from tristate.kernels.ssm_kernel import cauchy, vandermonde, vandermonde_transpose

Tensors = dict[str, Tensor]


def pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.clone())


def diagonal(t: Tensors, bilinear: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients before ``C``, exponents and ``C`` of an S4D kernel."""
    dt = t["inv_dt"].exp()
    A = torch.complex(-t["A_real"].exp(), -t["A_imag"])
    B, C = pairs(t["B"])[0], pairs(t["C"])[0]
    if bilinear:
        below = 1 - dt * A / 2
        return B * dt / below, torch.log((1 + dt * A / 2) / below), C
    return B * torch.expm1(dt * A) / A, dt * A, C


def s4d_zoh(t: Tensors) -> Tensors:
    B, z, C = diagonal(t, bilinear=False)
    kernel = vandermonde(C * B, z, t["x"].shape[2])
    return {"kernel": kernel[None]}


def s4d_state(t: Tensors) -> Tensors:
    B, z, C = diagonal(t, bilinear=True)
    x, before, length = t["x"], t["state0"], t["x"].shape[2]
    kernel = vandermonde(C * B, z, length)
    y = long_conv(x, kernel, t["D"][0]) + vandermonde(C * before * z.exp(), z, length)
    after = torch.exp(z * length) * before + B * vandermonde_transpose(x.flip(2), z)
    return {"kernel": kernel[None], "y": y, "next_state": after}


def s4d_real(t: Tensors) -> Tensors:
    dt, A = t["inv_dt"].exp(), -t["A_real"].exp()
    # Real states are doubled as well.
    c = 2 * t["C"][0] * t["B"][0] * torch.expm1(dt * A) / A
    kernel = vandermonde(c, dt * A, t["x"].shape[2])
    return {"kernel": kernel[None], "y": long_conv(t["x"], kernel, t["D"][0])}


def low_rank(t: Tensors, length: int) -> Tensor:
    """S4's kernels, ``(C, H, L)``, of rank one: four sums and Woodbury's identity, and back."""
    C = pairs(t["C"])
    copies = C.shape[1] // t["A_real"].shape[0]
    dt = t["inv_dt"].exp()
    A = torch.complex(-t["A_real"].exp(), -t["A_imag"]).repeat(copies, 1)
    B, P = (pairs(t[name]).repeat(1, copies, 1) for name in ("B", "P"))
    n_nodes = int(t["l_kernel"])
    unit = torch.exp(-2j * math.pi / n_nodes * torch.arange(n_nodes // 2 + 1).double())
    nodes, back = ((y / (1 + unit)).to(C.dtype) for y in (2 * (1 - unit), torch.full_like(unit, 2)))
    left, right = torch.cat([B, P]), torch.cat([C, P.conj()])
    sums = cauchy(left[:, None] * right * dt, nodes, dt * A)  # (2, C + 1, H, L)
    through = sums[:1, :-1] - sums[1:, :-1] * sums[:1, -1:] / (1 + sums[1:, -1:])
    return torch.fft.irfft(through[0] * back, n=n_nodes)[..., :length]


def s4(t: Tensors) -> Tensors:
    kernel = low_rank(t, t["x"].shape[2])
    return {"kernel": kernel, "y": long_conv(t["x"], kernel, t["D"])[:, 0]}


def s4_kernel(t: Tensors) -> Tensors:
    return {"kernel": low_rank(t, t["x"].shape[2])}


def s4nd(t: Tensors) -> Tensors:
    kernels, origin = [], []
    for axis, length in enumerate(t["u"].shape[2:]):
        own = {k.removeprefix(f"{axis}."): x for k, x in t.items() if k.startswith(f"{axis}.")}
        k = low_rank(own, length)
        kernels.append(two_sided(k[0], k[1]))
        origin.append(length)
    kernel = kernels[0][:, :, None] * kernels[1][:, None]
    return {"out": long_conv(t["u"], kernel, t["D"][0], origin=origin)}


def dss(t: Tensors) -> Tensors:
    dt, W = t["log_dt"].exp(), pairs(t["W"])
    poles = torch.complex(-t["Lambda_log_neg_re"].exp(), t["Lambda_im"])
    z = torch.complex(poles.real * dt[:, :1], poles.imag * dt[:, 1:])
    # A full set of states, not pairs.
    kernel = vandermonde(W * torch.expm1(z) / poles / 2, z, t["x"].shape[2])
    y = F.gelu(long_conv(t["x"], kernel[0], t["D"][0]))
    return {"kernel": kernel, "y": t["output_linear.weight"] @ y + t["output_linear.bias"]}


def mega(t: Tensors) -> Tensors:
    p = t["delta"].sigmoid()
    q = 1 - p * t["alpha"].sigmoid()
    scale = math.sqrt(1 / t["gamma"].shape[1])
    kernel = vandermonde(t["gamma"] * scale * (p * t["beta"])[..., 0], q[..., 0].log(), len(t["x"]))
    ahead, behind = kernel.chunk(2)[::-1]
    # Both directions weigh the position itself.
    both = two_sided(torch.cat([behind[:, :1] + ahead[:, :1], behind[:, 1:]], 1), ahead[:, 1:])
    x = t["x"].permute(1, 2, 0)
    masked = x.masked_fill(t["padding_mask"].bool()[:, None], 0)
    y = long_conv(masked, both, origin=len(t["x"]) - 1) + x * t["omega"][:, None]
    return {"kernel": kernel, "y": F.silu(y).permute(2, 0, 1)}


def long(t: Tensors) -> Tensors:
    length = t["x"].shape[2]
    kernel = F.softshrink(t["kernel"], 0.03)
    y = F.gelu(long_conv(t["x"], two_sided(*kernel), t["D"][0], origin=length))
    y = t["output_linear.0.weight"] @ y + t["output_linear.0.bias"][:, None]
    return {"kernel": kernel, "y": F.glu(y, 1)}


CASES = {
    "core/s4d_lin_zoh": s4d_zoh,
    "core/s4d_state0": s4d_state,
    "core/s4d_real_ema": s4d_real,
    "core/s4_conv_legs": s4,
    "core/s4_conv_legs_odd_lmax": s4_kernel,
    "core/s4_block_bidirectional": s4_kernel,
    "core/dss_exp": dss,
    "core/mega_ema_bidirectional_pad": mega,
    "core/longconv_bidir": long,
    "vision/s4nd/s4nd_2d_dplr_bidir": s4nd,
}


@pytest.mark.parametrize("backend", ("reference", "cpu"))
@pytest.mark.parametrize("name", CASES)
def test_is_what_the_original_computes(golden, name, backend):
    if backend not in available_backends():
        pytest.skip("this processor has no fused multiply-add vectors")
    file = load(golden / f"{name}.safetensors")
    exact = backend == "reference"
    tensors = {}
    for key, x in (file.group("state") | file.inputs()).items():
        if x.is_complex():
            x = x.to(torch.complex128 if exact else torch.complex64)
        elif x.is_floating_point():
            x = x.double() if exact else x.float()
        short = key.removeprefix("layer.").removeprefix("kernel.")
        tensors["kernel" if key == "kernel.kernel" else short] = x
    with use_backend(backend):
        results = CASES[name](tensors)
    tolerance = file.tolerance["float64" if exact else "float32"]["output"]
    for key, found in results.items():
        assert error(real(found), real(file.tensors[f"output.{key}"])) <= tolerance, key
