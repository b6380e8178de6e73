"""``kvtune reproduce``: the tables of the KVSmooth paper with one's own weights."""

from kvtune.search.reproduce.documents import ModelResult, SettingResult
from kvtune.search.reproduce.plan import DEFAULT_OUT, Request
from kvtune.search.reproduce.run import reproduce
from kvtune.search.reproduce.settings import PAPER_MODELS, SettingName, Table

__all__ = [
    "DEFAULT_OUT",
    "PAPER_MODELS",
    "ModelResult",
    "Request",
    "SettingName",
    "SettingResult",
    "Table",
    "reproduce",
]
