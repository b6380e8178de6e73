"""Works that want captions, run side by side through one captioner: scheduling of coroutines."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kvtune.errors import LostDeviceError, RequestError
from kvtune.study.caption_log import ImageId
from kvtune.study.deadline import TimeIsUp, Waves
from kvtune.study.pace import Pace
from kvtune.study.streams import Captioning, CaptionWriter, NamedImage, Number, Stream

if TYPE_CHECKING:
    from kvtune.captioning import CaptionRequest
    from kvtune.captioning.request import Work

T = TypeVar("T")


def alone(work: Captioning[T]) -> T:
    """Run one work to its end.

    Returns
    -------
    The work's result; what it raises goes on.
    """
    running: Together[T] = Together({"": work})
    running.run()
    for error in running.failures.values():
        raise error
    return running.results[""]


class Together(Generic[T]):
    """Works that run side by side; each fails alone.

    Requests of all go to the captioner by the images' places in their orders, so that captions of one image share its
    prefill whichever work wants them; without a method an image is captioned once for all works that ask for it.

    Parameters
    ----------
    works
        By name, which is not None.
    pace
        Is told of the captions of all works; where there are several works, of what the engine does too.
    on_work
        Called with the pace, several times a caption.

    Attributes
    ----------
    results, failures
        What came of the works that have ended, by name.
    tokens
        Written for each work, by name; those that several wanted for the first of them.
    """

    def __init__(
        self,
        works: Mapping[Hashable, Captioning[T]],
        pace: Pace | None = None,
        on_work: Callable[[Pace], None] = lambda pace: None,
    ) -> None:
        self.results: dict[Hashable, T] = {}
        self.failures: dict[Hashable, Exception] = {}
        self.tokens: dict[Hashable, int] = dict.fromkeys(works, 0)
        self._works = dict(works)
        self._streams: dict[Hashable, Stream] = {}
        self._pace, self._on_work = pace, on_work
        self._decoding = False
        self._owners: dict[tuple[Hashable, ImageId], list[tuple[Hashable, Number]]] = {}

    def run(self) -> None:
        """Run all works to their ends.

        Raises
        ------
        RequestError
            If a work refuses to begin; nothing was captioned.
        BaseException
            What is no error of a work: Ctrl-C, the end of the time before a work has yielded. All works are closed.
        """
        try:
            for name in self._works:
                self._go_on(name)
                if isinstance(failure := self.failures.get(name), RequestError):
                    raise failure
            while self._streams:
                self._decode()
        finally:
            for work in self._works.values():
                work.close()

    def _decode(self) -> None:
        """Let the captioner run once."""
        apart = next((name for name, stream in self._streams.items() if stream.apart), None)
        names = list(self._streams) if apart is None else [apart]
        first = self._streams[names[0]]
        size = first.waves.size()
        try:
            if size == 0:
                raise TimeIsUp
            self._run(first.captioner, apart, first.waves, size)
        except TimeIsUp:
            for name in list(self._streams):
                self._go_on(name, TimeIsUp())
        except LostDeviceError as error:
            for name in list(self._streams):
                self._go_on(name, error)
        except Exception as error:
            at_work = [name for name in names if name in self._streams]
            if len(at_work) == 1:
                self._go_on(at_work[0], error)
            for name in at_work if len(at_work) > 1 else ():
                # It is not known whose fault it was: each runs alone next.
                self._streams[name].apart = True
                self._streams[name].restart()
        finally:
            self._decoding = False

    def _run(self, captioner: CaptionWriter, apart: Hashable, waves: Waves, size: int | None) -> None:
        """Decode what the streams want, at most ``size`` captions."""
        self._owners.clear()
        at_work = [stream for stream in self._streams.values() if apart is None or stream is self._streams[apart]]
        if self._pace is not None:
            self._pace.ahead(*Pace.ahead_of_all(stream.pace for stream in at_work))
            self._pace.begin(sum(stream.missing for stream in at_work), sum(len(s.methods) for s in at_work))
        self._decoding = True
        taken = 0

        def worked(work: "Work") -> None:
            for stream in at_work if self._pace is None else ():
                stream.pace.work(work)
            for stream in at_work:
                stream.on_work()
            if self._pace is not None:
                self._pace.work(work)
                self._on_work(self._pace)
            waves.deadline.check()

        captions = captioner.run(islice(self._requests(apart), size), worked)
        for caption in waves.deadline.until(captions):
            taken += self._take(captioner, caption)
            waves.deadline.check()
        self._decoding = False
        waves.ended(taken)  # before a work goes on, which may ask how much time is left
        for name in list(self._streams):
            stream = self._streams[name]
            if apart is None or name == apart:
                stream.forget_asked()
                if stream.is_over:
                    self._go_on(name)

    def _requests(self, apart: Hashable) -> "Iterator[CaptionRequest]":
        """What the streams want next, those that begin meanwhile included."""
        from kvtune.captioning import CaptionRequest

        while True:
            ready = [
                (place[0], name)
                for name, stream in self._streams.items()
                if (name == apart if apart is not None else not stream.apart) and (place := stream.next) is not None
            ]
            if not ready:
                return
            name = min(ready, key=lambda each: each[0])[1]
            image, method, number = self._streams[name].ask()
            tag = self._tag(name, number)
            owners = [(name, number)]
            if method is None:
                sharing = [other for _, other in ready if self._wants_too(name, other, image)]
                owners += [(other, self._streams[other].ask()[2]) for other in sharing]
            self._owners[tag, image[0]] = owners
            yield CaptionRequest(image[0], image[1], method, tag)

    def _tag(self, name: Hashable, number: Number) -> Hashable:
        return number if len(self._works) == 1 else (name, number)

    def _wants_too(self, name: Hashable, other: Hashable, image: NamedImage) -> bool:
        """Whether the next that another stream wants is this image without a method too."""
        stream = self._streams[other]
        if other == name or stream.next is None:
            return False
        place, number = stream.next
        return stream.methods[number] is None and stream.images[place] == image

    def _take(self, captioner: CaptionWriter, caption: Any) -> bool:
        """Give a caption to those who want it; whether anybody does."""
        wanted = False
        for name, number in self._owners.pop((caption.tag, caption.image_id), ()):
            stream = self._streams.get(name)
            if stream is None or number not in stream.methods:
                continue
            self.tokens[name] += 0 if wanted else len(caption.token_ids)
            wanted |= number not in stream.stopped
            stream.take(number, caption)
            if self._pace is not None:
                self._pace.caption(len(caption.token_ids))
            for each in stream.stopped - stream.withdrawn:
                stream.withdrawn.add(each)
                captioner.withdraw(self._tag(name, each))
                if self._pace is not None:
                    self._pace.spare(sum(image_id not in stream.logs[each] for image_id, _ in stream.images))
            if len(self._works) > 1 and stream.is_over:
                self._go_on(name)
        return wanted

    def _go_on(self, name: Hashable, error: BaseException | None = None) -> None:
        """Let a work go on until it wants captions that are not there, or ends."""
        work = self._works[name]
        self._streams.pop(name, None)
        while True:
            try:
                stream = next(work) if error is None else work.throw(error)
            except StopIteration as end:
                self.results[name] = end.value
                return
            except Exception as failure:
                self.failures[name] = failure
                return
            error = None
            if not stream.is_over:
                break
        self._streams[name] = stream
        if self._decoding and self._pace is not None and not stream.apart:
            self._pace.join(stream.missing)
