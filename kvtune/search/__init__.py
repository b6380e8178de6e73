"""Which settings are tried next, and the loop that tries them."""

import sys
from types import ModuleType
from typing import Any


class _Search(ModuleType):
    """This package, and the function ``kvtune.search``, which has its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from importlib import import_module

        return import_module("kvtune.api").search(*arguments, **options)


sys.modules[__name__].__class__ = _Search
