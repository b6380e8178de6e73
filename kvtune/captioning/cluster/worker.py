"""A worker: an ordinary captioner on its device or devices, fed by messages. It knows nothing of how they travel."""

from __future__ import annotations

import hashlib
import logging
import pickle
import socket
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.cluster.dispatcher import Numbered
from kvtune.captioning.cluster.messages import Batch, Machine, Ready, Report, Settings
from kvtune.captioning.memory import MOST_ROWS
from kvtune.captioning.request import CaptionRequest, Work
from kvtune.errors import LostDeviceError
from kvtune.methods import Method
from kvtune.models.devices import resolve_devices
from kvtune.models.model_facts import ModelFacts
from kvtune.package_versions import package_versions

log = logging.getLogger(__name__)

DIGESTED = 64
"""Values of a parameter that its digest is of."""


class Worker:
    """Writes captions in a thread of its own, while other threads bring requests and fetch what is done.

    Parameters
    ----------
    captioner
        Opened already.
    """

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner
        self._changed = threading.Condition()
        self._queue: deque[tuple[Settings, Numbered]] = deque()
        self._begun: set[int] = set()
        self._current: Captioner | None = None
        self._more_to_come = True
        self._lacking: dict[Path, list[tuple[Settings, Numbered]]] = {}
        """Requests whose image file is not here, until it comes."""
        self._brought: dict[Path, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._report = Report()
        self._before = Work()
        """What earlier runs did."""
        threading.Thread(target=self._work, daemon=True, name="captions").start()

    @property
    def ready(self) -> Ready:
        """What the driver is to know first."""
        rows = MOST_ROWS if self._captioner.lanes == "auto" else self._captioner.lanes
        vlm = self._captioner.vlm
        return Ready(ModelFacts.of(vlm), rows, weights_digest(vlm.hf_model))

    def check(self, method: Method) -> None:
        """Raise RequestError if a method cannot serve the model."""
        self._captioner.check(method)

    def take(self, batch: Batch) -> None:
        """Write these captions too."""
        with self._changed:
            for number, request in batch.requests:
                image = request.image
                if isinstance(image, Path) and not self._is_here(image, batch.sizes.get(image)):
                    if image not in self._lacking:
                        self._lacking[image] = []
                        self._report.absent.append(image)
                    self._lacking[image].append((batch.settings, (number, request)))
                else:
                    self._add(batch.settings, (number, request))
            self._more_to_come = True
            self._changed.notify_all()

    def bring(self, path: Path, content: bytes) -> None:
        """Take an image file that was absent."""
        with self._changed:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="kvtune-images-")
            here = Path(self._folder.name) / str(len(self._brought)) / path.name
            here.parent.mkdir()
            here.write_bytes(content)
            self._brought[path] = here
            for settings, numbered in self._lacking.pop(path, []):
                self._add(settings, numbered)
            self._changed.notify_all()

    def drop(self, numbers: list[int]) -> None:
        """Leave these requests."""
        gone = set(numbers)
        with self._changed:
            self._queue = deque(each for each in self._queue if each[1][0] not in gone)
            self._lacking = {
                path: [each for each in waiting if each[1][0] not in gone] for path, waiting in self._lacking.items()
            }
            for number in gone & self._begun:
                assert self._current is not None
                self._current.withdraw(number)
            self._begun -= gone

    def begin(self, run: int) -> None:
        """Leave everything; what comes now belongs to another run."""
        with self._changed:
            self.drop([each[1][0] for each in self._queue] + list(self._begun))
            self._lacking = {}
            self._more_to_come = True
            self._report = Report(run, work=self._report.work, rows=self._report.rows)

    def no_more(self) -> None:
        """Nothing more is to be expected, so that a grid may shrink with what is left."""
        with self._changed:
            self._more_to_come = False

    def report(self, seconds: float) -> Report:
        """What was done since the last report, as soon as there is anything to tell, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._report.tells_something, seconds)
            report = self._report
            self._report = Report(report.run, work=report.work, rows=report.rows)
        return report

    def _is_here(self, path: Path, size: int | None) -> bool:
        if path in self._brought:
            return True
        try:
            return size is None or path.stat().st_size == size
        except OSError:
            return False

    def _add(self, settings: Settings, numbered: Numbered) -> None:
        number, request = numbered
        image = request.image
        if isinstance(image, Path) and image in self._brought:
            image = self._brought[image]
        self._queue.append((settings, (number, replace(request, image=image, tag=number))))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue))
                settings = self._queue[0][0]
                self._current = captioner = self._changed_to(settings)
            try:
                for caption in captioner.run(self._requests(settings), self._worked(captioner)):
                    assert isinstance(caption.tag, int)
                    with self._changed:
                        if caption.tag in self._begun:
                            self._begun.discard(caption.tag)
                            self._report.captions.append(
                                (caption.tag, caption.text, caption.token_ids, caption.finish_reason)
                            )
                            self._changed.notify_all()
            except LostDeviceError as error:
                log.exception("the device is lost")
                with self._changed:
                    self._report.lost = str(error)
                    self._changed.notify_all()
                return
            except Exception as error:
                log.exception("captioning failed")
                with self._changed:
                    self._queue.clear()
                    self._begun.clear()
                    self._report.error = _that_travels(error)
                    self._changed.notify_all()
            with self._changed:
                done = self._report.work
                self._before = replace(done, in_flight=0)
                self._report.work = self._before

    def _requests(self, settings: Settings) -> Iterator[CaptionRequest | None]:
        """What the queue has for one run, which is over when nothing is decoded and nothing waits."""
        while True:
            with self._changed:
                if self._queue and self._queue[0][0] == settings:
                    number, request = self._queue.popleft()[1]
                    self._begun.add(number)
                elif self._queue or not self._more_to_come:
                    return
                else:
                    request = None
            yield request

    def _worked(self, captioner: Captioner) -> Callable[[Work], None]:
        def worked(work: Work) -> None:
            with self._changed:
                self._report.work = work.after(self._before)
                if captioner.plan is not None:
                    self._report.rows = captioner.plan.rows

        return worked

    def _changed_to(self, settings: Settings) -> Captioner:
        captioner = self._captioner
        own = {field.name: getattr(captioner, field.name) for field in fields(settings)}
        if settings != Settings(**own):
            self._captioner = captioner.changed(**{name: getattr(settings, name) for name in own})
        return self._captioner


def machine(device: str) -> Machine:
    """Where this process runs, with ``device`` as ``--device`` names it, or several GPUs with commas between."""
    kinds = Counter(
        torch.cuda.get_device_name(target) if target.type == "cuda" else target.type
        for target in resolve_devices(device)
    )
    named = ", ".join(f"{count} x {kind}" if kinds.total() > 1 else kind for kind, count in kinds.items())
    return Machine(socket.gethostname(), named, versions())


def versions() -> dict[str, str]:
    """Versions that workers are to have as the driver has them."""
    return package_versions("torch", "transformers")


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256, in hexadecimal, of some values of every parameter: the same wherever the same weights are."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        values = parameter.detach().reshape(-1)
        some = values[:: max(1, len(values) // DIGESTED)][:DIGESTED].cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode() + some.numpy().tobytes())
    return digest.hexdigest()


def _that_travels(error: Exception) -> Exception:
    """The error, or what it says where it cannot be sent to another process."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error.with_traceback(None)
    except Exception:
        log.debug("an error that cannot be sent", exc_info=True)
    return RuntimeError(f"{type(error).__name__}: {error}")
