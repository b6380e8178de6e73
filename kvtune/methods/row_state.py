"""What a method remembers of each row while a batch decodes, and what is asked of a method meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class RowState(ABC):
    """What a method remembers per row and layer while a batch decodes, and what it makes of each row's entropy.

    A decode step calls :meth:`smooth_output` for each layer in :attr:`layers`, where any row asks for it, and
    :meth:`factors` once at its end.
    """

    layers: range
    """The layers in which any row has ever done anything; the others need not be looked at."""

    @abstractmethod
    def set_rows(self, rows: Sequence[int], methods: Sequence[Any]) -> None:
        """Start ``rows`` afresh, each with a method of its own; None leaves its row alone."""

    @property
    @abstractmethod
    def smooths_output(self) -> bool:
        """Whether any row smooths attention outputs, so that :meth:`smooth_output` must be called."""

    @abstractmethod
    def smooth_output(self, layer: int, entropy: Tensor, output: Tensor) -> Tensor:
        """Attention output of one layer, [rows, heads, head_dim], smoothed where a row asks for it."""

    @abstractmethod
    def start_outputs(self, rows: Tensor, layer: int, output: Tensor) -> None:
        """Take the last prompt token's attention output, [len(rows), heads, head_dim], to start output smoothing.

        ``rows`` are indices on the state's device.
        """

    @abstractmethod
    def factors(self, entropy: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step's row entropies and say how far to move the new key and value towards those before.

        Parameters
        ----------
        entropy
            [len(self.layers), rows], natural log, mean over heads.

        Returns
        -------
        tuple
            Two tensors [len(self.layers), rows] in [0, 1]: the factor for keys and the one for values.
        """

    @abstractmethod
    def smoothing(self, entropy: Tensor) -> Tensor:
        """How strongly each layer and row is smoothed in this step, for those who look on.

        To be asked before :meth:`factors`, which ends the step; it changes nothing.

        Parameters
        ----------
        entropy
            As for :meth:`factors`.

        Returns
        -------
        Tensor
            [len(self.layers), rows] in [0, 1], whatever is smoothed by it; NaN where nothing is.
        """

    @abstractmethod
    def captured_with(self) -> Hashable:
        """What a CUDA graph of :meth:`factors` and :meth:`smooth_output` has fixed; when it changes, capture again."""

    @abstractmethod
    def reorder(self, index: Tensor) -> None:
        """Row ``i`` becomes what row ``index[i]`` was, as beam search does with the cache."""


class RowMethod(Protocol):
    """What those who decode ask of a method; see :class:`kvtune.methods.Method`."""

    name: ClassVar[str]

    def check_layers(self, n_layers: int) -> None: ...

    @property
    def prefix_key(self) -> Hashable: ...

    def edit_prefix(self, keys: list[Tensor], values: list[Tensor]) -> None: ...

    @classmethod
    def row_state(cls, n_rows: int, n_layers: int, device: Any) -> RowState: ...
