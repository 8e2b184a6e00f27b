"""Vision backbones, registered with timm: ``timm.create_model(name)`` after this import."""

from tristate.vision.models import vim_timm as vim_timm
from tristate.vision.models.vim import Vim

__all__ = ["Vim"]
