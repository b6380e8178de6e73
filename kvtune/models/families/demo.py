"""The demo model: a small LLaVA trained on kvtune's own scenes, shipped with the package."""

from typing import ClassVar

from kvtune.models.families.llava import Llava
from kvtune.models.family import VisionLanguageModel


class Demo(Llava):
    """The shipped model that describes rendered scenes; no download, no GPU."""

    name = "demo"
    model_types: ClassVar[tuple[str, ...]] = ()
    usual_tokens = 67.0
    template = "USER: <image>\n{prompt} ASSISTANT:"

    def template_for(self, vlm: VisionLanguageModel) -> str:
        return self.template
