"""For what each op's kernels are compiled and inspected: default configurations. A line an op.

Each name leads to a function that yields cases: a description, and a call that starts kernels on
tensors of the device ``meta``.
"""

from tristate.kernels.registry import Registry

CASES = Registry(
    "op with Triton kernels",
    {
        "add_norm": "tristate.kernels.norm.triton_cases:add_norm",
        "cauchy": "tristate.kernels.ssm_kernel.triton_cases:cauchy",
        "causal_conv1d": "tristate.kernels.conv.triton_cases:cases",
        "gated_delta_rule": "tristate.kernels.delta.triton_cases:cases",
        "gated_rms_norm": "tristate.kernels.norm.triton_cases:gated_rms_norm",
        "linear_attention": "tristate.kernels.attention.triton_cases:cases",
        "linear_scan": "tristate.kernels.linear.triton_cases:cases",
        "selective_scan": "tristate.kernels.selective.triton_cases:cases",
        "ssd_scan": "tristate.kernels.ssd.triton_cases:cases",
        "vandermonde": "tristate.kernels.ssm_kernel.triton_cases:vandermonde",
        "wkv": "tristate.kernels.rwkv.triton_cases:cases",
    },
)
