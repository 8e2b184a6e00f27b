"""Vision: backbones under timm's roof, image data and tasks.

Importing this registers the backbones with timm: ``timm.create_model("vim_tiny_patch16_224")``.
"""

from timm.layers import register_notrace_function

from tristate import kernels
from tristate.vision import models as models
from tristate.vision import zoo as zoo

# timm's feature extraction by torch.fx keeps these whole instead of tracing into them.
for name in kernels.OPS:
    register_notrace_function(getattr(kernels, name))
