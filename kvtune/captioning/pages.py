"""Pages of the KV cache: which are free, and who holds which. Plain Python, no tensors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

PAGE = 32
"""Positions of one page, of a prompt or of a caption."""


def pages_for(positions: int) -> int:
    """Pages that ``positions`` take."""
    return -(-positions // PAGE)


class Pages:
    """Hands out page numbers.

    Page 0 belongs to nobody: rows that stand idle write there.

    Parameters
    ----------
    count
        Pages to hand out; their numbers are 1 to ``count``.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count, 0, -1))
        self._held: dict[Hashable, list[int]] = {}

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def of(self, owner: Hashable) -> list[int]:
        """The pages of ``owner``, in the order in which they were taken."""
        return self._held.get(owner, [])

    def take(self, owner: Hashable, count: int) -> list[int]:
        """``count`` more pages for ``owner``; there must be as many free."""
        if count > len(self._free):
            raise ValueError(f"{count} pages are wanted and {len(self._free)} are free")
        taken = [self._free.pop() for _ in range(count)]
        self._held.setdefault(owner, []).extend(taken)
        return taken

    def give_back(self, owner: Hashable) -> None:
        """All pages of ``owner`` are free."""
        self._free += reversed(self._held.pop(owner, []))

    def hand_over(self, owners: Mapping[Hashable, Hashable]) -> None:
        """What each of some owners held is another's of them, each of whom hands over to one."""
        self._held |= {owners[owner]: self._held.pop(owner) for owner in owners if owner in self._held}
