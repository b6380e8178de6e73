"""Captions that a work wants before it goes on.

A work is a generator. It yields the captions that it wants next as a :class:`Stream`, and goes on when these are there.
Its end is its result. What goes wrong with its captions is raised where it yielded, and so is
:class:`kvtune.study.deadline.TimeIsUp`. Works are run by :mod:`kvtune.study.together`.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from kvtune.study.caption_log import ImageId
from kvtune.study.deadline import Waves
from kvtune.study.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvtune.captioning.request import Work
    from kvtune.methods import Method

NamedImage = tuple[ImageId, Path]
"""What an image is called, and its file."""

Number = int | None
"""A trial's number; None is the baseline."""

T = TypeVar("T")


class CaptionWriter(Protocol):
    """What a search needs of :class:`kvtune.captioning.Captioner`."""

    def run(self, requests: "Iterable[Any]", on_work: "Callable[[Work], None]" = ...) -> Iterator[Any]:
        """Captions as they finish, in any order; ``on_work`` is called several times a caption."""

    def withdraw(self, tag: Any) -> None:
        """Give no captions for requests of ``tag`` any more."""


class Log(Protocol):
    """Where captions are kept; see :class:`kvtune.study.caption_log.CaptionLog`."""

    def __contains__(self, image_id: ImageId) -> bool: ...

    def append(self, image_id: Any, caption: str, tokens: int, finish_reason: str) -> None:
        """Keep a caption."""


@dataclass(eq=False)
class Stream:
    """Captions that a work wants before it goes on: every image with every method, but for those that are there.

    Attributes
    ----------
    captioner
        Writes them; the same one for all works that run together.
    images
        The images, in the order in which they are asked for.
    methods, logs
        By a trial's number: its method (None for no method), and where its captions are kept.
    on_caption
        Called with the number after each caption.
    stopped
        Numbers that want no more captions; may grow while ``on_caption`` is called.
    waves
        How many captions to begin at once, and until when.
    pace
        Is told of captions, and of what the engine does where this work runs alone.
    on_work
        Called several times a caption.
    apart
        Whether it runs without the others, because it may fail.
    """

    captioner: CaptionWriter
    images: Sequence[NamedImage]
    methods: "Mapping[Number, Method | None]"
    logs: Mapping[Number, Log]
    on_caption: Callable[[Number], None] = lambda number: None
    stopped: Set[Number] = frozenset()
    waves: Waves = field(default_factory=Waves)
    pace: Pace = field(default_factory=Pace)
    on_work: Callable[[], None] = lambda: None
    apart: bool = False

    def __post_init__(self) -> None:
        self.withdrawn: set[Number] = set()
        self.restart()

    def restart(self) -> None:
        """Ask again for all that is not there: what was asked for is lost."""
        self._out: set[tuple[ImageId, Number]] = set()
        self._missing = self._each_missing()
        self._next = next(self._missing, None)

    @property
    def missing(self) -> int:
        """How many captions are not there."""
        wanted = [number for number in self.methods if number not in self.stopped]
        return sum(image_id not in self.logs[number] for number in wanted for image_id, _ in self.images)

    @property
    def next(self) -> tuple[int, Number] | None:
        """What comes next: the image's place and the number; None if all was asked for."""
        while self._next is not None and self._next[1] in self.stopped:
            self._next = next(self._missing, None)
        return self._next

    @property
    def is_over(self) -> bool:
        """Whether everything is there that is still wanted."""
        return self.next is None and all(number in self.stopped for _, number in self._out)

    def ask(self) -> tuple[NamedImage, "Method | None", Number]:
        """The image, method and number that come next."""
        assert self._next is not None
        place, number = self._next
        self._next = next(self._missing, None)
        image = self.images[place]
        self._out.add((image[0], number))
        return image, self.methods[number], number

    def take(self, number: Number, caption: Any) -> None:
        """Keep a caption that was asked for, unless it is not wanted any more."""
        self._out.discard((caption.image_id, number))
        if number in self.stopped:
            return
        self.logs[number].append(caption.image_id, caption.text, len(caption.token_ids), caption.finish_reason)
        self.pace.caption(len(caption.token_ids))
        self.on_caption(number)

    def forget_asked(self) -> None:
        """What was asked for and has not come will not."""
        self._out.clear()

    def _each_missing(self) -> Iterator[tuple[int, Number]]:
        """By image, because captions of one image share its prefill."""
        for place, (image_id, _) in enumerate(self.images):
            for number in self.methods:
                if number not in self.stopped and image_id not in self.logs[number]:
                    yield place, number


Captioning = Generator[Stream, None, T]
"""A work whose result is a T."""
