"""Model families: how to load them, prompt them, prepare images, and where the visual tokens are."""

from kvtune.models.family import Family, VisionLanguageModel
from kvtune.models.loading import commit_of, load_model, locate
from kvtune.models.registry import families, family_of, get_family

__all__ = ["Family", "VisionLanguageModel", "commit_of", "families", "family_of", "get_family", "load_model", "locate"]
