"""The preset's schema and the presets that ship."""

from kvtune.presets.load import load_preset, preset_names
from kvtune.presets.preset import GenerationInfo, MetricsInfo, ModelInfo, Preset, SelectionInfo, StudyInfo, SubsetInfo

__all__ = [
    "GenerationInfo",
    "MetricsInfo",
    "ModelInfo",
    "Preset",
    "SelectionInfo",
    "StudyInfo",
    "SubsetInfo",
    "load_preset",
    "preset_names",
]
