"""What is tuned: training-free methods, their parameters, and what they do to attention and the KV cache."""

from kvtune.methods.ad_hh import ADHH
from kvtune.methods.alternatives import CHOICE, OR, Alternatives
from kvtune.methods.clvs import CLVS
from kvtune.methods.dscr import DSCR
from kvtune.methods.kvsmooth import KVSmooth
from kvtune.methods.method import Method, Published, method_names
from kvtune.methods.middle_layers import MiddleLayers
from kvtune.methods.pai import PAI
from kvtune.methods.sparc import SPARC
from kvtune.methods.stack import ALL, JOIN, Stack, get_method, listed_methods
from kvtune.methods.vaf import VAF
from kvtune.methods.var import VAR

__all__ = [
    "ADHH",
    "ALL",
    "CHOICE",
    "CLVS",
    "DSCR",
    "JOIN",
    "OR",
    "PAI",
    "SPARC",
    "VAF",
    "VAR",
    "Alternatives",
    "KVSmooth",
    "Method",
    "MiddleLayers",
    "Published",
    "Stack",
    "get_method",
    "listed_methods",
    "method_names",
]
