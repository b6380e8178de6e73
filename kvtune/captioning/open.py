"""Opening a captioner: the one place where the options of a command become a model that writes captions."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.cluster.data_parallel import DataParallelCaptioner
from kvtune.captioning.one_device import open_on_one_device
from kvtune.models.opening import worker_devices
from kvtune.models.options import ModelOptions

AnyCaptioner = Captioner | DataParallelCaptioner

log = logging.getLogger(__name__)


def open_captioner(
    options: ModelOptions,
    prompt: str | None = None,
    max_new_tokens: int = 512,
    on_note: Callable[[str], None] = log.warning,
) -> AnyCaptioner:
    """Load a model and make its captioner, or have workers load it; ``vlm`` is what is known of the model.

    Parameters
    ----------
    prompt, max_new_tokens
        As for :class:`Captioner`; ``changed`` gives the same model others.
    on_note
        Is told what becomes of workers, in a line.

    Raises
    ------
    RequestError
        If an option is wrong, or the model is missing, is not supported or does not fit into the device's memory.
    """
    engine = options.engine
    if not engine.has_workers:
        return open_on_one_device(options, prompt, max_new_tokens)
    devices = worker_devices(engine)
    from kvtune.captioning.cluster.pool import WorkerPool
    from kvtune.captioning.cluster.ray_address import check_cluster

    if engine.cluster is not None:
        check_cluster(engine.cluster)
    from kvtune.captioning.cluster.ray_backend import RayBackend
    from kvtune.captioning.cluster.worker import versions

    backend = RayBackend(options, prompt, max_new_tokens, devices)
    pool = WorkerPool(backend, versions(), engine.mixed_workers, on_note)
    weakref.finalize(pool, backend.close).atexit = False  # at the end of the process Ray ends them itself
    try:
        pool.start()
    except BaseException:
        pool.close()
        raise
    return DataParallelCaptioner(pool, prompt, max_new_tokens, engine.lanes, engine.cuda_graphs)
