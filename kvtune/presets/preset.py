"""The preset: a method's parameters as JSON, with where they come from and what they did."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvtune.schema import Document

if TYPE_CHECKING:
    from kvtune.methods import Method

SchemaVersion = Literal[1, 2]
"""What is read: 1, and 2, whose method may be a stack of several; a preset has the lowest that can say it."""


class ModelInfo(Document):
    """The model that a preset was found on.

    ``family`` is kvtune's name of the architecture, ``id`` the hub id or folder, ``layers`` the decoder's layers.
    """

    family: str
    id: str | None
    revision: str | None
    layers: int = Field(ge=1)


class GenerationInfo(Document):
    """How the captions were decoded: greedily, with this prompt, up to ``max_new_tokens`` tokens."""

    prompt: str
    max_new_tokens: int = Field(ge=1)
    dtype: str | None


class SelectionInfo(Document):
    """Why this point of the front: the rule, and the images on which the rule was applied."""

    rule: str
    on: Literal["tune", "holdout"]


class MetricsInfo(Document):
    """Scores by name, in percent, of the preset on the tune and the held-out images, and of the baseline on tune."""

    tune: dict[str, Any]
    holdout: dict[str, Any] | None
    baseline: dict[str, Any]


class SubsetInfo(Document):
    """A subset without its ids: its name, its sha256 and the number of its images."""

    name: str
    sha256: str
    images: int = Field(ge=1)


class StudyInfo(Document):
    """The study and the trial in it; null for a setting that ``kvtune sensitivity`` found."""

    name: str
    trial: Annotated[int, Field(ge=0)] | None


class Preset(Document):
    """A tuned setting of a method.

    In JSON and in the constructor the key of ``method_name`` is ``method``. A preset that a search wrote has
    everything; one taken from a paper (``source: paper``) has no selection, metrics, subset or study. A stack is
    written ``a+b``, and a parameter that several of its methods have is ``METHOD.NAME``. ``versions`` are those of
    packages, and under ``device`` on what a search last ran, as in ``8 x NVIDIA H100``.
    """

    schema_version: SchemaVersion
    name: str
    method_name: str = Field(alias="method")
    parameters: dict[str, Any]
    model: ModelInfo
    generation: GenerationInfo
    selection: SelectionInfo | None
    metrics: MetricsInfo | None
    subset: SubsetInfo | None
    study: StudyInfo | None
    versions: dict[str, str]
    source: Literal["search", "paper"]

    @staticmethod
    def version_for(method_name: str) -> SchemaVersion:
        """The schema version of a preset for this method."""
        from kvtune.methods import JOIN

        return 2 if JOIN in method_name else 1

    def method(self) -> "Method":
        """The method with these parameters: ``with preset.method()(model): model.generate(...)``.

        Raises
        ------
        RequestError
            If the method is unknown or does not take these parameters.
        """
        from kvtune.methods import get_method

        return get_method(self.method_name).from_parameters(self.parameters)
