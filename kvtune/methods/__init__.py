"""What is tuned: training-free methods, their parameters, and what they do to attention and the KV cache."""

from kvtune.methods.base import Method, RowState, get_method, method_names
from kvtune.methods.kvsmooth import KVSmooth

__all__ = ["KVSmooth", "Method", "RowState", "get_method", "method_names"]
