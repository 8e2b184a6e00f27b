"""The modules of mamba-ssm and causal-conv1d, and where each of their names is defined here.

The paths, names and signatures are those of https://github.com/state-spaces/mamba and
https://github.com/Dao-AILab/causal-conv1d in the versions below; ``ops.triton.layernorm`` is where
mamba-ssm 1 had its norms, and ``bimamba_inner_fn``, ``mamba_inner_fn_no_out_proj`` and the
two-sided options of ``Mamba`` are of the fork in https://github.com/hustvl/Vim.
"""

# The version whose interface is offered; the local part says whose it is.
PACKAGES = {"causal_conv1d": "1.5.0+tristate", "mamba_ssm": "2.2.4+tristate"}

# Module -> file of this folder -> names that the module has from it.
MODULES: dict[str, dict[str, str]] = {
    "causal_conv1d": {"conv": "causal_conv1d_fn causal_conv1d_update"},
    "causal_conv1d.causal_conv1d_interface": {
        "conv": "causal_conv1d_fn causal_conv1d_update",
        "references": "causal_conv1d_ref causal_conv1d_update_ref",
    },
    "causal_conv1d.causal_conv1d_varlen": {
        "conv": "causal_conv1d_varlen_states",
        "references": "causal_conv1d_varlen_states_ref",
    },
    "mamba_ssm": {
        "mamba": "Mamba",
        "mamba2": "Mamba2",
        "scan": "mamba_inner_fn selective_scan_fn",
    },
    "mamba_ssm.modules": {},
    "mamba_ssm.modules.block": {"block": "Block"},
    "mamba_ssm.modules.mamba2": {"mamba2": "Mamba2"},
    "mamba_ssm.modules.mamba2_simple": {"mamba2_simple": "Mamba2Simple"},
    "mamba_ssm.modules.mamba_simple": {"first": "Block", "mamba": "Mamba"},
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": {
        "references": "bimamba_inner_ref mamba_inner_ref selective_scan_ref",
        "scan": "bimamba_inner_fn mamba_inner_fn mamba_inner_fn_no_out_proj selective_scan_fn",
    },
    "mamba_ssm.ops.triton": {},
    "mamba_ssm.ops.triton.layer_norm": {
        "norm": "RMSNorm layer_norm_fn layer_norm_linear_fn rms_norm_fn"
    },
    "mamba_ssm.ops.triton.layernorm": {"first": "RMSNorm layer_norm_fn rms_norm_fn"},
    "mamba_ssm.ops.triton.layernorm_gated": {
        "gated_norm": "LayerNorm RMSNorm layernorm_fn rmsnorm_fn"
    },
    "mamba_ssm.ops.triton.selective_state_update": {
        "references": "selective_state_update_ref",
        "scan": "selective_state_update",
    },
    "mamba_ssm.ops.triton.ssd_combined": {
        "ssd": "mamba_chunk_scan_combined mamba_split_conv1d_scan_combined"
    },
    "mamba_ssm.utils": {},
    "mamba_ssm.utils.generation": {"generation": "GenerationMixin InferenceParams"},
    "mamba_ssm.utils.hf": {"hub": "load_config_hf load_state_dict_hf"},
}
