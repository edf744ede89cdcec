"""Acting once another library has been imported, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def after_import(library: str, act: Callable[[], object]) -> None:
    """Call ``act`` once ``library`` is imported: now if it is, otherwise right after its first import."""
    if library in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Watch(library, act))


class _Watch(MetaPathFinder):
    """Waits for one import, and leaves the search for the module to the finders after it."""

    def __init__(self, library: str, act: Callable[[], object]) -> None:
        self.library, self.act = library, act

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.library or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)
        else:
            spec.loader = _ThenAct(spec.loader, self)
        return spec


class _ThenAct(Loader):
    """The library's own loader, and the act after it."""

    def __init__(self, own: Loader, watch: _Watch) -> None:
        self.own, self.watch = own, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.own  # what others look at: resources, sources
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        try:
            self.own.exec_module(module)
        except BaseException:
            sys.meta_path.insert(0, self.watch)  # it may be imported again
            raise
        self.watch.act()
