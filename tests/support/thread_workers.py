"""Workers in threads of this process, each with a model of its own, behind the calls of a cluster's backend."""

import pickle
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import replace
from threading import Lock
from typing import ClassVar

from kvtune.captioning.cluster.ray_backend import WorkerActor


class ThreadBackend:
    """As :class:`kvtune.captioning.cluster.ray_backend.RayBackend`; whatever is told is pickled on its way."""

    opened: ClassVar = []
    _loading = Lock()
    """Transformers cannot load two models at once in one process."""

    def __init__(self, options, prompt, max_new_tokens, devices):
        one = replace(options, engine=replace(options.engine, device="cpu", workers=None, cluster=None))
        self._arguments = one, prompt, max_new_tokens, None
        self._devices, self.workers = devices, []
        self.opened.append(self)

    def places(self):
        return len(self._devices)

    def launch(self, place):
        worker = WorkerActor(*_travelled(self._arguments))
        worker.calls, worker.reports = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        worker.captions = 0
        self.workers.append(worker)
        return worker

    def call(self, worker, method, *arguments):
        threads = worker.reports if method == "report" else worker.calls
        return threads.submit(self._called, worker, method, *arguments)

    def _called(self, worker, method, *arguments):
        with self._loading if method == "open" else nullcontext():
            return _travelled(getattr(worker, method)(*_travelled(arguments)))

    def wait(self, promises, seconds):
        return list(wait(promises, seconds, FIRST_COMPLETED).done)

    def result(self, promise):
        return promise.result()

    def kill(self, worker):
        worker.calls.shutdown(wait=False, cancel_futures=True)
        worker.reports.shutdown(wait=False, cancel_futures=True)

    def close(self):
        for worker in self.workers:
            self.kill(worker)


def _travelled(message):
    return pickle.loads(pickle.dumps(message))
