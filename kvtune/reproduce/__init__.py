"""``kvtune reproduce``: the tables of the KVSmooth paper with one's own weights."""

from kvtune.reproduce.documents import ModelResult, SettingResult
from kvtune.reproduce.paper_settings import PAPER_MODELS, SettingName, Table
from kvtune.reproduce.plan import DEFAULT_OUT, Request
from kvtune.reproduce.reproduction import reproduce

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
