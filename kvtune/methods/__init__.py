"""What is tuned: training-free methods, their parameters, and what they do to attention and the KV cache."""

from kvtune.methods.kvsmooth import KVSmooth
from kvtune.methods.method import Method, get_method, method_names
from kvtune.methods.row_state import RowState

__all__ = ["KVSmooth", "Method", "RowState", "get_method", "method_names"]
