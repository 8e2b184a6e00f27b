"""Names of mamba-ssm and causal-conv1d over this project's kernels, for code written for them.

:func:`enable` makes ``mamba_ssm`` and ``causal_conv1d`` importable, with their module paths, names,
signatures and ``state_dict`` layouts, so that such code runs where the originals can't be built: on
a CPU, without a compiler. Code of its own takes :mod:`tristate.core` and :mod:`tristate.kernels`
instead, which do more.
"""

from tristate.core.compat import rebind
from tristate.core.compat.finder import Finder
from tristate.core.compat.names import PACKAGES

__all__ = ["disable", "enable"]

_finder = Finder()


def enable(*, shadow: bool = False) -> None:
    """Make ``mamba_ssm`` and ``causal_conv1d`` importable in this process.

    What imports them afterwards gets these kernels: Vim's and Caduceus' models for instance.
    transformers' models (5.23 or newer) take the names up whether they were imported before or are
    later, and then run their fast path on the CPU. Enabling twice does nothing more.

    Args:
        shadow: also stand in front of originals that are installed, until :func:`disable`; what was
            imported of them before keeps them.

    Raises:
        RuntimeError: an original is installed, and ``shadow`` was not asked for.
    """
    if _finder.active:
        return
    installed = {name: place for name in PACKAGES if (place := _finder.installed(name))}
    if installed and not shadow:
        found = ", ".join(f"{name} ({place})" for name, place in installed.items())
        raise RuntimeError(f"installed already: {found}; enable(shadow=True) stands in front of it")
    _finder.start()
    rebind.transformers()


def disable() -> None:
    """Undo :func:`enable`: the names are gone, or are again what was installed.

    transformers' models go back to their own implementation; other code keeps what it imported.
    Disabling what isn't enabled does nothing.
    """
    if not _finder.active:
        return
    _finder.stop()
    rebind.transformers()
