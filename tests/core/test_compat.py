"""mamba_ssm and causal_conv1d by their own names: what is there, and when."""

# The packages are there only while they are enabled: no type checker finds them.
# pyright: reportMissingImports=false

import importlib
import importlib.metadata
import inspect
import subprocess
import sys

import pytest

from tristate import compat
from tristate.core.compat.names import MODULES, PACKAGES

SCAN = "u delta A B C D z delta_bias delta_softplus return_last_state"
INNER = "xz conv1d_weight conv1d_bias x_proj_weight delta_proj_weight"
PROJECTED = "B C D delta_bias B_proj_bias C_proj_bias delta_softplus"
NORM = "x weight bias residual x1 weight1 bias1 eps dropout_p rowscale prenorm residual_in_fp32"
SSD = "x dt A B C chunk_size D z dt_bias initial_states seq_idx cu_seqlens dt_softplus dt_limit"
MAMBA = (
    "d_model d_state d_conv expand dt_rank dt_min dt_max dt_init dt_scale dt_init_floor conv_bias "
    "bias use_fast_path layer_idx device dtype bimamba_type"
)
MAMBA2 = (
    "d_model d_state d_conv conv_init expand headdim d_ssm ngroups A_init_range D_has_hdim rmsnorm "
    "norm_before_gate dt_min dt_max dt_init_floor dt_limit bias conv_bias chunk_size "
    "use_mem_eff_path layer_idx process_group sequence_parallel device dtype"
)

# The originals' arguments in their order: code hands them over by place.
SIGNATURES = {
    "causal_conv1d:causal_conv1d_fn": "x weight bias seq_idx initial_states return_final_states "
    "final_states_out activation",
    "causal_conv1d:causal_conv1d_update": "x conv_state weight bias activation cache_seqlens "
    "conv_state_indices",
    "mamba_ssm:selective_scan_fn": SCAN,
    "mamba_ssm:mamba_inner_fn": f"{INNER} out_proj_weight out_proj_bias A {PROJECTED} "
    "checkpoint_lvl b_rms_weight c_rms_weight dt_rms_weight b_c_dt_rms_eps",
    "mamba_ssm.ops.selective_scan_interface:mamba_inner_fn_no_out_proj": f"{INNER} A {PROJECTED}",
    "mamba_ssm.ops.selective_scan_interface:bimamba_inner_fn": f"{INNER} out_proj_weight "
    f"out_proj_bias A A_b {PROJECTED}",
    "mamba_ssm.ops.triton.selective_state_update:selective_state_update": "state x dt A B C D z "
    "dt_bias dt_softplus state_batch_indices",
    "mamba_ssm.ops.triton.layer_norm:layer_norm_fn": f"{NORM} is_rms_norm return_dropout_mask",
    "mamba_ssm.ops.triton.layer_norm:rms_norm_fn": f"{NORM} return_dropout_mask",
    "mamba_ssm.ops.triton.layernorm:layer_norm_fn": "x weight bias residual eps prenorm "
    "residual_in_fp32 is_rms_norm",
    "mamba_ssm.ops.triton.layernorm:rms_norm_fn": "x weight bias residual prenorm "
    "residual_in_fp32 eps",
    "mamba_ssm.ops.triton.layernorm_gated:rmsnorm_fn": "x weight bias z eps group_size "
    "norm_before_gate",
    "mamba_ssm.ops.triton.layernorm_gated:RMSNorm": "hidden_size eps group_size norm_before_gate "
    "device dtype",
    "mamba_ssm.ops.triton.ssd_combined:mamba_chunk_scan_combined": f"{SSD} return_final_states "
    "return_varlen_states",
    "mamba_ssm.ops.triton.ssd_combined:mamba_split_conv1d_scan_combined": "zxbcdt conv1d_weight "
    "conv1d_bias dt_bias A D chunk_size initial_states seq_idx dt_limit return_final_states "
    "activation rmsnorm_weight rmsnorm_eps outproj_weight outproj_bias headdim ngroups "
    "norm_before_gate",
    "mamba_ssm.modules.mamba_simple:Mamba": MAMBA,
    "mamba_ssm.modules.mamba_simple:Block": "dim mixer_cls norm_cls fused_add_norm "
    "residual_in_fp32",
    "mamba_ssm.modules.mamba2:Mamba2": MAMBA2,
    "mamba_ssm.modules.block:Block": "dim mixer_cls mlp_cls norm_cls fused_add_norm "
    "residual_in_fp32",
}


@pytest.fixture
def enabled():
    compat.enable()
    yield
    compat.disable()


@pytest.mark.parametrize("name", MODULES)
def test_every_name_is_where_the_original_has_it(enabled, name):
    module = importlib.import_module(name)
    for names in MODULES[name].values():
        for public in names.split():
            assert callable(getattr(module, public))
    # `import mamba_ssm` brings its submodules along, as the original does.
    root, *path = name.split(".")
    found = sys.modules[root]
    for part in path:
        found = getattr(found, part)
    assert found is module


@pytest.mark.parametrize("where", SIGNATURES)
def test_arguments_stand_in_the_originals_order(enabled, where):
    module, _, name = where.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    wanted = SIGNATURES[where].split()
    assert list(parameters)[: len(wanted)] == wanted


@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_can_be_asked_for(enabled, package):
    assert importlib.import_module(package).__version__ == PACKAGES[package]
    for spelt in (package, package.replace("_", "-")):
        assert importlib.metadata.version(spelt) == PACKAGES[package]
    assert importlib.util.find_spec(package) is not None


def test_what_is_not_there_is_an_import_error(enabled):
    with pytest.raises(ModuleNotFoundError, match="mamba_ssm.modules.mamba3"):
        importlib.import_module("mamba_ssm.modules.mamba3")
    assert importlib.util.find_spec("mamba_ssm.modules.mamba3") is None
    with pytest.raises(ImportError, match="Mambo"):
        from mamba_ssm import Mambo  # noqa: F401


def test_disable_takes_it_away():
    compat.enable()
    compat.enable()
    import mamba_ssm.ops.triton.layer_norm

    assert mamba_ssm.__version__
    compat.disable()
    compat.disable()
    assert not [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("mamba-ssm")
    assert importlib.util.find_spec("mamba_ssm") is None


@pytest.fixture
def original(tmp_path, monkeypatch):
    """An installed mamba_ssm of another's."""
    folder = tmp_path / "mamba_ssm"
    folder.mkdir()
    (folder / "__init__.py").write_text("__version__ = 'theirs'\n")
    (folder / "extra.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    compat.disable()
    for name in ("mamba_ssm", "mamba_ssm.extra"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("imported", [False, True])
def test_an_installed_original_is_not_shadowed_unasked(original, imported):
    if imported:
        importlib.import_module("mamba_ssm.extra")
    with pytest.raises(RuntimeError, match=r"mamba_ssm \(.*__init__.py\).*shadow=True"):
        compat.enable()
    assert importlib.import_module("mamba_ssm").__version__ == "theirs"


@pytest.mark.parametrize("imported", [False, True])
def test_an_original_comes_back_after_shadowing(original, imported):
    theirs = importlib.import_module("mamba_ssm.extra") if imported else None
    compat.enable(shadow=True)
    assert importlib.import_module("mamba_ssm").__version__ == PACKAGES["mamba_ssm"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm.extra")
    compat.disable()
    assert importlib.import_module("mamba_ssm").__version__ == "theirs"
    assert sys.modules.get("mamba_ssm.extra") is theirs


def test_enabling_alone_imports_nothing_heavy():
    code = (
        "import sys, tristate; tristate.compat.enable(); "
        "assert not {'causal_conv1d', 'mamba_ssm', 'torch'} & sys.modules.keys()"
    )
    package = inspect.getfile(compat).rpartition("/tristate/")[0]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {package!r}); {code}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
