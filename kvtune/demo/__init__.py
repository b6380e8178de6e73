"""The built-in demo: rendered scenes as a COCO data set, and a small LLaVA trained to describe them."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvtune.demo.coco import demo_coco as demo_coco

__all__ = ["demo_coco", "demo_model_path"]


def demo_model_path() -> Path:
    """The folder of the demo model, for ``LlavaForConditionalGeneration.from_pretrained`` and ``AutoProcessor``.

    The weights are float16; load them with ``dtype=torch.float32`` on a CPU.
    """
    return Path(__file__).parent / "weights"


def __getattr__(name: str) -> Any:
    if name == "demo_coco":
        return import_module("kvtune.demo.coco").demo_coco
    raise AttributeError(f"module 'kvtune.demo' has no attribute {name!r}")
