"""Record outcomes of many settings of the demo with the engine.

    python -m kvtune.bench.search.record --out grid.npz

Scenes are rendered, captioned with every setting and scored one after the other. What is done is appended to
``grid.npz.jsonl`` image by image, so the same command goes on where it stopped, and ``--images`` says how many are
there in the end; then they are packed into ``grid.npz``. A table that is there already is gone on with as well. The
tables that ``kvtune bench search`` reads unless told otherwise are made by ::

    python -m kvtune.bench.search.record --set grid --out kvtune/bench/search/grid.npz       # 121,800 captions
    python -m kvtune.bench.search.record --set pool --out kvtune/bench/search/pool.npz       # 42,000 captions

The scenes' ids are far from those that the demo model was trained on and its weights were chosen on (both in
``kvtune/demo/README.md``), and from those of the demo's data set.
"""

import argparse
import base64
import hashlib
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

import kvtune
from kvtune.bench.search.settings import SETS, Setting, methods_of
from kvtune.bench.search.table import KEPT, Recorded, Table, load_table
from kvtune.chair import COLUMNS, SCORER, ChairScorer
from kvtune.coco.truth import coco_truth
from kvtune.errors import KvtuneError, RequestError
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.spaces import load_space, spaces_folder
from kvtune.study.jsonl import LineWriter, each_line
from kvtune.study.pace import Pace

if TYPE_CHECKING:
    from kvtune.captioning import Caption, Captioner, CaptionRequest
    from kvtune.models import VisionLanguageModel

MAX_NEW_TOKENS = 128
SCENES_SEED = 0
CAPTIONS_AT_ONCE = 10_000
"""Scenes with so many captions are rendered and streamed to the engine together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write; what is done is kept beside it")
    parser.add_argument("--set", choices=list(SETS), default="grid", help="settings and scenes to record")
    parser.add_argument("--images", type=int, help="scenes in all; default: as many as the set has")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    chosen = SETS[arguments.set]
    images = len(chosen.scenes) if arguments.images is None else arguments.images
    try:
        record(arguments.out, chosen.settings, chosen.scenes[:images], arguments.device)
    except KvtuneError as error:
        parser.exit(error.exit_code, f"{error}\n")


def record(out: Path, settings: Sequence[Setting], scenes: Sequence[int], device: str = "auto") -> Table:
    """Record what is missing, then write the table.

    Parameters
    ----------
    out
        The table's file; ``out`` + ``.jsonl`` keeps what is done.
    settings
        See :func:`kvtune.bench.search.settings.methods_of`.
    scenes
        Image ids, one or more.
    device
        Where the model runs; always in float32.

    Raises
    ------
    RequestError
        If what was begun there was recorded in another way, or no scene is asked for.
    """
    if not scenes:
        raise RequestError("--images must be at least 1")
    from kvtune.captioning.one_device import open_on_one_device

    options = ModelOptions("demo", "float32", engine=EngineOptions(device))
    captioner = open_on_one_device(options, max_new_tokens=MAX_NEW_TOKENS)
    recorded = _recorded(captioner.vlm, settings)
    lines = out.with_name(out.name + ".jsonl")
    begun = _begun(lines, out, recorded)
    done = {line["image_id"]: line for line in begun[1:]}
    missing = [scene for scene in scenes if scene not in done]
    writer = LineWriter(lines)
    if not lines.stat().st_size:
        for line in begun:
            writer.append(line)
    pace = Pace()
    for line in _outcomes(captioner, recorded, missing, pace):
        writer.append(line)
        writer.sync()
        done[line["image_id"]] = line
        print(", ".join(filter(None, [f"{len(done)} of {len(scenes)} scenes", pace.words()])), flush=True)
    writer.close()
    table = _table(recorded, [done[scene] for scene in scenes])
    table.save(out)
    return table


def _recorded(vlm: "VisionLanguageModel", settings: Sequence[Setting]) -> Recorded:
    from kvtune.demo import demo_model_path

    return Recorded(
        kvtune=kvtune.__version__,
        scorer=SCORER,
        weights=hashlib.sha256((demo_model_path() / "model.safetensors").read_bytes()).hexdigest(),
        device=str(vlm.device.type),
        dtype=vlm.dtype_name,
        prompt=vlm.default_prompt,
        max_new_tokens=MAX_NEW_TOKENS,
        scenes_seed=SCENES_SEED,
        settings=list(settings),
        fixed=load_space(spaces_folder() / "kvsmooth" / "demo.yaml").fixed,
    )


def _begun(lines: Path, out: Path, recorded: Recorded) -> list[dict[str, Any]]:
    """How it is recorded, and the images that are: of the lines or, where there are none, of the table."""
    header = recorded.model_dump(mode="json")
    found, place = list(each_line(lines)), lines
    if not found and out.exists():
        table, place = load_table(out), out
        found = [table.recorded.model_dump(mode="json")]
        for (image_id, truth), outcomes in zip(table.truth.items(), table.outcomes, strict=True):
            found.append({"image_id": image_id, "truth": truth, "outcomes": _packed(outcomes)})
    if found and found[0] != header:
        raise RequestError(f"{place} was begun with other settings, weights or versions; name another --out")
    return found or [header]


def _outcomes(
    captioner: "Captioner", recorded: Recorded, scenes: Sequence[int], pace: Pace
) -> Iterator[dict[str, Any]]:
    """A line for each scene, as its last caption comes."""
    methods = len(methods_of(recorded.settings)[0])
    together = max(1, CAPTIONS_AT_ONCE // methods)
    for begin in range(0, len(scenes), together):
        with tempfile.TemporaryDirectory() as folder:
            paths, truth = _render(Path(folder), scenes[begin : begin + together], recorded.scenes_seed)
            scorer = ChairScorer(truth)
            waiting: dict[int, dict[int, Caption]] = {}
            pace.ahead(methods * max(0, len(scenes) - begin - together), methods, together)
            pace.begin(methods * len(paths), methods)
            for caption in captioner.run(_requests(paths, recorded), pace.work):
                pace.caption(len(caption.token_ids))
                written = waiting.setdefault(caption.image_id, {})
                written[cast(int, caption.tag)] = caption
                if len(written) == methods:
                    del waiting[caption.image_id]
                    yield _line(scorer, truth, [written[method] for method in range(methods)])


def _render(folder: Path, scenes: Sequence[int], seed: int) -> tuple[dict[int, Path], dict[int, set[str]]]:
    """Files of scenes and what is in them, as the demo's own data set has them."""
    from kvtune.coco import CocoFolder
    from kvtune.demo.coco import write_coco

    write_coco(folder, scenes, seed)
    coco = CocoFolder(folder)
    truth = coco_truth(coco, scenes)
    return dict(zip(scenes, coco.image_paths(scenes), strict=True)), truth


def _requests(paths: dict[int, Path], recorded: Recorded) -> "Iterator[CaptionRequest]":
    from kvtune.captioning import CaptionRequest
    from kvtune.methods import get_method

    kvsmooth = get_method("kvsmooth")
    methods = [
        None if setting is None else kvsmooth.from_parameters({**setting, **recorded.fixed})
        for setting in methods_of(recorded.settings)[0]
    ]
    for image_id, path in paths.items():
        for tag, method in enumerate(methods):
            yield CaptionRequest(image_id, path, method, tag)


def _line(scorer: ChairScorer, truth: dict[int, set[str]], captions: "Sequence[Caption]") -> dict[str, Any]:
    image_id = captions[0].image_id
    table = scorer.counts([{"image_id": image_id, "caption": caption.text} for caption in captions]).table
    kept = [table[:, COLUMNS.index(name)] for name in KEPT[:-1]]
    kept.append(np.array([caption.finish_reason == "length" for caption in captions]))
    outcomes = np.stack(kept, axis=-1)
    if outcomes.max() > np.iinfo(np.uint8).max:
        raise KvtuneError(f"image {image_id} has a count of {outcomes.max()}, more than the table has room for")
    return {"image_id": image_id, "truth": sorted(truth[image_id]), "outcomes": _packed(outcomes.astype(np.uint8))}


def _packed(outcomes: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(outcomes.tobytes(), 9)).decode()


def _table(recorded: Recorded, lines: Sequence[dict[str, Any]]) -> Table:
    methods = len(methods_of(recorded.settings)[0])
    outcomes = [np.frombuffer(zlib.decompress(base64.b64decode(line["outcomes"])), dtype=np.uint8) for line in lines]
    return Table(
        recorded,
        {line["image_id"]: line["truth"] for line in lines},
        np.stack(outcomes).reshape(len(lines), methods, len(KEPT)),
    )


if __name__ == "__main__":
    main()
