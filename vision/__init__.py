"""Vision: backbones under timm's roof, image data and tasks.

Importing this registers the backbones with timm: ``timm.create_model("vim_tiny_patch16_224")``.
"""

from timm.layers import register_notrace_function

from tristate.kernels.conv import causal_conv1d
from tristate.kernels.cross import bidirectional_selective_scan, selective_scan_2d
from tristate.kernels.norm import add_norm
from tristate.kernels.selective import selective_scan
from tristate.vision import models as models
from tristate.vision import zoo as zoo

# timm's feature extraction by torch.fx keeps these whole instead of tracing into them.
for op in (
    add_norm,
    bidirectional_selective_scan,
    causal_conv1d,
    selective_scan,
    selective_scan_2d,
):
    register_notrace_function(op)
