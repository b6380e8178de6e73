"""Train the demo model on rendered scenes.

    python -m kvtune.demo.train --out DIR --seed 0

Stage 1 teaches the vision tower to tell, patch by patch, which categories and colours are there. Stage 2 freezes it
and trains projector and decoder on the long captions of `kvtune.demo.descriptions`. A decoder trained straight away
learns the language and ignores the picture for a long time; after stage 1 it does not.

Several captions of one scene share a row: the prompt with the picture is computed once, and every caption attends to
it and to itself only. README.md in this folder has the commands of the shipped weights and what they reach.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from kvtune.demo.canvas import SIZE
from kvtune.demo.descriptions import training_caption
from kvtune.demo.scene_kinds import KINDS
from kvtune.demo.scenes import CATEGORIES, TRAINED, render
from kvtune.demo.shapes import PALETTE
from kvtune.demo.small_llava import PATCH, PROMPTS, TEMPLATE, build_model, build_processor, build_tokenizer

_COLOURS = tuple(PALETTE)
_SIDE = SIZE // PATCH
_LABELS = len(CATEGORIES) + len(_COLOURS)
_ENOUGH_PIXELS = 5  # of an object in a patch, for the patch to be asked about it


@dataclass
class Data:
    """``pixels`` uint8 [N, 64, 64, 3]; ``patches`` bool [N, 64, labels]; ``kinds`` int [N]; captions as token ids."""

    pixels: torch.Tensor
    patches: torch.Tensor
    kinds: torch.Tensor
    captions: list[list[list[int]]]


def _one_scene(image_id: int, seed: int, count: int) -> tuple[np.ndarray, np.ndarray, int, list[str]]:
    scene = render(seed, image_id, TRAINED)
    rng = np.random.default_rng([seed, image_id, 1])
    patches = np.zeros((_SIDE, _SIDE, _LABELS), dtype=bool)
    for index, one in enumerate(scene.objects):
        mask = scene.instances == index + 1
        enough = mask.reshape(_SIDE, PATCH, _SIDE, PATCH).sum(axis=(1, 3)) >= _ENOUGH_PIXELS
        patches[..., CATEGORIES.index(one.category)] |= enough
        patches[..., len(CATEGORIES) + _COLOURS.index(one.colour)] |= enough
    captions = [training_caption(rng, scene) for _ in range(count)]
    return scene.pixels, patches.reshape(-1, _LABELS), list(KINDS).index(scene.kind), captions


def make_data(scenes: int, captions: int, seed: int) -> tuple[Data, PreTrainedTokenizerFast]:
    """Render the training scenes (ids from 1), write captions of each, and make a tokenizer of their words."""
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        work = partial(_one_scene, seed=seed, count=captions)
        rows = list(pool.map(work, range(1, scenes + 1), chunksize=256))
    texts = [text for row in rows for text in row[3]]
    tokenizer = build_tokenizer(sorted(set(texts)))
    end = tokenizer.eos_token_id
    ids = [[*one, end] for one in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return Data(
        torch.from_numpy(np.stack([row[0] for row in rows])),
        torch.from_numpy(np.stack([row[1] for row in rows])),
        torch.tensor([row[2] for row in rows]),
        [ids[i : i + captions] for i in range(0, len(ids), captions)],
    ), tokenizer


def _pixel_values(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 [B, 64, 64, 3] -> float [B, 3, 64, 64], normalised as the image processor does."""
    return (pixels.to(device).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def _schedule(done: float, warm: float = 0.04) -> float:
    """Warm-up, then half a cosine, as a share of the highest learning rate."""
    return done / warm if done < warm else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def _adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.AdamW:
    every = list(parameters)
    return torch.optim.AdamW(
        [
            {"params": [p for p in every if p.ndim > 1], "weight_decay": 0.05, "rate": rate},
            {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0, "rate": rate},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def _muon(matrices: Iterable[nn.Parameter], rate: float) -> torch.optim.Muon:
    """Orthogonalised momentum: a decoder learns in half the steps of AdamW."""
    return torch.optim.Muon(
        [{"params": list(matrices), "rate": rate}], weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )


def _step(optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor, share: float) -> None:
    """One step at a share of every optimizer's highest rate."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["lr"] = group["rate"] * share
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
    for optimizer in optimizers:
        optimizer.step()


def train_vision(
    model: LlavaForConditionalGeneration, data: Data, steps: int, seed: int, batch: int = 64, rate: float = 1e-3
) -> None:
    """Stage 1: multi-label losses for every patch and for the whole picture; the heads are thrown away."""
    device = model.device
    torch.manual_seed(seed + 1)
    tower = model.model.vision_tower
    width = tower.config.hidden_size
    patch_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _LABELS)).to(device)
    picture_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(CATEGORIES) + len(KINDS))).to(device)
    trained = nn.ModuleList([tower, patch_head, picture_head])
    matrices = [p for p in tower.encoder.parameters() if p.ndim == 2]
    others = [p for p in trained.parameters() if all(p is not one for one in matrices)]
    optimizers = [_muon(matrices, 3 * rate), _adamw(others, rate)]
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.full((_LABELS,), 3.0, device=device)
    begin, order = time.time(), torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(data.pixels), generator=generator)
        rows, order = order[:batch], order[batch:]
        states = tower(_pixel_values(data.pixels[rows], device)).last_hidden_state
        truth = data.patches[rows].to(device).float()
        logits = patch_head(states[:, 1:])
        dense = nn.functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight)
        whole = picture_head(states[:, 0])
        present = truth[..., : len(CATEGORIES)].amax(dim=1)
        multi = nn.functional.binary_cross_entropy_with_logits(whole[:, : len(CATEGORIES)], present)
        kind = nn.functional.cross_entropy(whole[:, len(CATEGORIES) :], data.kinds[rows].to(device))
        _step(optimizers, 10 * dense + multi + 0.1 * kind, _schedule((step + 1) / steps))
        if step % 50 == 0 or step == steps - 1:
            found = logits[..., : len(CATEGORIES)].amax(dim=1) > 0
            hit = (found & present.bool()).sum().item()
            f1 = 200 * hit / max(1, found.sum().item() + int(present.sum().item()))
            print(f"vision {step}/{steps} dense {dense.item():.4f} f1 {f1:.1f} {time.time() - begin:.0f}s", flush=True)


@dataclass
class Batch:
    """Rows of one prompt each followed by its scene's captions."""

    rows: torch.Tensor  # [B] scenes
    ids: torch.Tensor  # [B, T] captions one after the other
    positions: torch.Tensor  # [B, P + T]
    segments: torch.Tensor  # [B, P + T] 0 prompt, 1... captions, -1 padding
    sources: torch.Tensor  # [N] flat places that predict ...
    targets: torch.Tensor  # [N] ... these tokens


def _make_batch(rows: list[int], captions: list[list[list[int]]], prompt: int) -> Batch:
    total = max(sum(map(len, ones)) for ones in captions)
    size = (len(rows), prompt + total)
    ids = np.zeros((len(rows), total), dtype=np.int64)
    positions = np.zeros(size, dtype=np.int64)
    segments = np.full(size, -1, dtype=np.int64)
    positions[:, :prompt], segments[:, :prompt] = np.arange(prompt), 0
    sources, targets = [], []
    for row, ones in enumerate(captions):
        at = prompt
        for number, tokens in enumerate(ones, start=1):
            here = slice(at, at + len(tokens))
            ids[row, at - prompt : at - prompt + len(tokens)] = tokens
            positions[row, here], segments[row, here] = np.arange(prompt, prompt + len(tokens)), number
            base = row * size[1]
            sources += [base + prompt - 1, *range(base + at, base + at + len(tokens) - 1)]
            targets += tokens
            at += len(tokens)
    return Batch(*(torch.as_tensor(x) for x in (rows, ids, positions, segments, sources, targets)))


def _batches(data: Data, size: int, per_scene: int, prompt: int, generator: np.random.Generator) -> Iterator[Batch]:
    """Endless shuffled batches, rows of similar length together."""
    while True:
        order = generator.permutation(len(data.captions))
        for start in range(0, len(order), size * 16):
            chunk = []
            for row in order[start : start + size * 16].tolist():
                ones = data.captions[row]
                chosen = generator.choice(len(ones), size=per_scene, replace=False)
                chunk.append((row, [ones[i] for i in chosen]))
            chunk.sort(key=lambda item: sum(map(len, item[1])))
            parts = [chunk[i : i + size] for i in range(0, len(chunk) - size + 1, size)]
            for part in generator.permutation(len(parts)):
                yield _make_batch([row for row, _ in parts[part]], [ones for _, ones in parts[part]], prompt)


def _forgotten(segments: torch.Tensor) -> torch.Tensor:
    """Words of a caption that later words of it do not see, [B, P + T, P + T]: in half of the rows a share up to 0.9.

    A decoder that has always seen every word of its caption falls apart when its keys and values are blurred. A large
    model does not, nor does a small one that has learnt to go on without some of them.
    """
    rows, length = segments.shape
    share = torch.rand(rows, 1, 1) * 1.8 - 0.9
    forgotten = torch.rand(rows, length, length) < share
    forgotten &= ~torch.eye(length, dtype=torch.bool)
    return forgotten.to(segments.device) & (segments[:, None, :] > 0)


def caption_loss(
    model: LlavaForConditionalGeneration, data: Data, batch: Batch, prompt_ids: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the captions' tokens."""
    device = model.device
    with torch.no_grad():
        states = model.model.vision_tower(_pixel_values(data.pixels[batch.rows], device)).last_hidden_state[:, 1:]
    features = model.model.multi_modal_projector(states)
    embed = model.model.language_model.embed_tokens
    prompt = embed(prompt_ids.to(device)).expand(len(batch.rows), -1, -1)
    first = int((prompt_ids == model.config.image_token_id).nonzero()[0, 0])
    inputs = torch.cat(
        [prompt[:, :first], features, prompt[:, first + features.shape[1] :], embed(batch.ids.to(device))], dim=1
    )
    segments = batch.segments.to(device)
    length = segments.shape[1]
    seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    seen &= torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if model.training:
        seen &= ~_forgotten(segments)
    hidden = model.model.language_model(
        inputs_embeds=inputs,
        attention_mask=seen[:, None],
        position_ids=batch.positions.to(device),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[batch.sources.to(device)])
    return nn.functional.cross_entropy(logits.float(), batch.targets.to(device))


def train_captions(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    data: Data,
    steps: int,
    seed: int,
    out: Path,
    batch: int = 8,
    per_scene: int = 3,
    rate: float = 5e-3,
) -> None:
    """Stage 2: projector and decoder on captions, the vision tower frozen. Saves every tenth of the way."""
    torch.manual_seed(seed + 2)
    image_tokens = "<image>" * (_SIDE * _SIDE)
    prompts = [
        torch.tensor(tokenizer(TEMPLATE.format(prompt=prompt).replace("<image>", image_tokens))["input_ids"])
        for prompt in PROMPTS
    ]
    generator = np.random.default_rng([seed, 2])
    streams = [_batches(data, batch, per_scene, len(prompt), generator) for prompt in prompts]
    trained = nn.ModuleList([model.model.multi_modal_projector, model.model.language_model])
    embedding = model.model.language_model.embed_tokens.weight
    matrices = [p for p in trained.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in trained.parameters() if p.ndim < 2 or p is embedding]
    optimizers = [_muon(matrices, rate), _adamw(others, 0.4 * rate)]
    begin, average = time.time(), 0.0
    for step in range(steps):
        which = int(generator.choice(len(prompts), p=(0.7, 0.1, 0.1, 0.1)))
        loss = caption_loss(model, data, next(streams[which]), prompts[which])
        _step(optimizers, loss, _schedule((step + 1) / steps))
        average = loss.item() if step == 0 else 0.95 * average + 0.05 * loss.item()
        if step % 20 == 0 or step == steps - 1:
            print(f"captions {step}/{steps} loss {average:.4f} {time.time() - begin:.0f}s", flush=True)
        if (step + 1) % max(1, steps // 10) == 0:
            save(model, tokenizer, out / f"step-{step + 1}")


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model in float16 with its processor, as ``from_pretrained`` reads them."""
    half = LlavaForConditionalGeneration(copy.deepcopy(model.config)).half()
    for part in (half, half.model.language_model, half.model.vision_tower):
        part.config.dtype = torch.float16
    half.load_state_dict(model.state_dict())
    half.tie_weights()
    half.generation_config = model.generation_config
    half.save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model on rendered scenes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints; the last one is OUT/final")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=40000)
    parser.add_argument("--captions", type=int, default=4, help="captions written for each scene")
    parser.add_argument("--vision-steps", type=int, default=2400)
    parser.add_argument("--steps", type=int, default=2600, help="steps of stage 2, 8 scenes with 3 captions each")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    begin = time.time()
    data, tokenizer = make_data(arguments.scenes, arguments.captions, arguments.seed)
    model = build_model(tokenizer, arguments.seed)
    if torch.cuda.is_available():
        nn.Module.to(model, "cuda")
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{len(data.pixels)} scenes, {len(tokenizer)} tokens, {size:,} parameters, {time.time() - begin:.0f}s",
        flush=True,
    )
    train_vision(model, data, arguments.vision_steps, arguments.seed)
    train_captions(model, tokenizer, data, arguments.steps, arguments.seed, arguments.out)
    save(model, tokenizer, arguments.out / "final")


if __name__ == "__main__":
    main()
