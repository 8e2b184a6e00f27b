"""How Python finds the modules of :data:`tristate.core.compat.names.MODULES`."""

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from importlib.util import find_spec
from types import ModuleType

from tristate.core.compat.names import MODULES, PACKAGES


class Finder(MetaPathFinder, Loader):
    """Finds and fills the modules of the table while it is active; a hook of :data:`sys.meta_path`.

    Nothing of the table is imported before it is asked for. A package brings its submodules along,
    as the originals do.
    """

    def __init__(self) -> None:
        self.active = False
        # Modules of installed originals that were imported before, by name.
        self._hidden: dict[str, ModuleType] = {}

    def start(self) -> None:
        """Stand in front of all other finders."""
        self._hidden = {name: sys.modules.pop(name) for name in _imported()}
        sys.meta_path.insert(0, self)
        self.active = True

    def stop(self) -> None:
        """Step aside, and put back what was hidden."""
        sys.meta_path.remove(self)
        for name in _imported():
            del sys.modules[name]
        sys.modules.update(self._hidden)
        self._hidden = {}
        self.active = False

    def installed(self, package: str) -> str | None:
        """Where ``package`` is found without this finder, in words; None where it is not."""
        if module := sys.modules.get(package):
            return getattr(module, "__file__", None) or "imported in this process"
        spec = find_spec(package)
        if spec is None:
            return None
        return spec.origin or ", ".join(spec.submodule_search_locations or ["no known place"])

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec; None for what is not in the table."""
        if fullname not in MODULES:
            return None
        return ModuleSpec(fullname, self, origin="tristate", is_package=_is_package(fullname))

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names."""
        name = module.__name__
        for file, names in MODULES[name].items():
            source = import_module(f"tristate.core.compat.{file}")
            for public in names.split():
                setattr(module, public, getattr(source, public))
        if name in PACKAGES:
            vars(module)["__version__"] = PACKAGES[name]
        for child in MODULES:
            if child.rpartition(".")[0] == name:
                import_module(child)

    def find_distributions(
        self, context: DistributionFinder.Context | None = None
    ) -> Iterator[Distribution]:
        """What :mod:`importlib.metadata` is told: code may ask there for the version."""
        asked = None if context is None else context.name
        for package, version in PACKAGES.items():
            if asked is None or asked.lower().replace("-", "_") == package:
                yield _Metadata(package, version)


class _Metadata(Distribution):
    """The name and version of a package that lies in no folder."""

    def __init__(self, package: str, version: str) -> None:
        self._text = f"Name: {package.replace('_', '-')}\nVersion: {version}\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path):
        raise FileNotFoundError(f"{path}: {self.name} lies in no folder")


def _imported() -> list[str]:
    """Names of all modules of the packages that are imported now, whoever made them."""
    return [name for name in sys.modules if name.partition(".")[0] in PACKAGES]


def _is_package(name: str) -> bool:
    return any(child.startswith(f"{name}.") for child in MODULES)
