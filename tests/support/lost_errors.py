"""Places where Python, or an extension, prints what is raised and goes on."""

import ctypes
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any


def in_a_destructor(act: Callable[[], Any]) -> None:
    class Gone:
        def __del__(self) -> None:
            act()

    Gone()


def in_a_callback_of_a_weak_reference(act: Callable[[], Any]) -> None:
    class Gone:
        pass

    gone = Gone()
    reference = weakref.ref(gone, lambda _: act())
    del gone
    assert reference() is None


def in_a_generator_that_is_thrown_away(act: Callable[[], Any]) -> None:
    def begun() -> Iterator[None]:
        try:
            yield
        finally:
            act()

    next(begun())


def amid_garbage_collection(act: Callable[[], Any]) -> None:
    def collected(phase: str, found: dict[str, int]) -> None:
        if phase == "start":
            act()

    gc.callbacks.append(collected)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(collected)


def in_an_extension(act: Callable[[], Any]) -> None:
    """As the C of NumPy's ``import_array`` and others: PyErr_Print, and on."""
    in_an_extension.act = act  # type: ignore[attr-defined]
    code = f"from {__name__} import in_an_extension; in_an_extension.act()"
    assert ctypes.pythonapi.PyRun_SimpleString(code.encode()) == -1


WHERE_IT_IS_LOST: dict[str, Callable[[Callable[[], Any]], None]] = {
    place.__name__.replace("_", " "): place
    for place in (
        in_a_destructor,
        in_a_callback_of_a_weak_reference,
        in_a_generator_that_is_thrown_away,
        amid_garbage_collection,
        in_an_extension,
    )
}
