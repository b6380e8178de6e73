"""Requests of every method for a small model's images, and what generate() writes for them."""

import functools

from small_models import small_llava
from small_vlms import References, random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import CaptionRequest
from kvtune.methods import ADHH, CLVS, DSCR, PAI, SPARC, VAF, VAR, MiddleLayers, Stack

IMAGES = random_images(5)

METHODS = [
    None,
    KVSmooth(0.9, 15, 0.2, 1, 3),
    KVSmooth(0.5, 3, 0.5, 0, 3),
    KVSmooth(0.7, 4, 0.3, 0, 2, adaptive=False),
    KVSmooth(0.6, 80, 0.4, 1, 2, target="k"),
    KVSmooth(0.6, 5, 0.4, 0, 3, target="attention_output"),
    PAI(0.5, 0, 3),
    VAF(1.3, 0.8, 1, 3),
    MiddleLayers(0.7, 1, 2),
    SPARC(1.4, 0.5, 0.1, 1),
    ADHH(((0, 1), (2, 3), (2, 0)), 0.3),
    VAR(1.5, 0.9, 0.3),
    CLVS(0.5, 0.6, 0.9),
    DSCR(0.6, 0.2, 0.6, 0.8, 0, 3, target="kv"),
    Stack.of(VAF(1.3, 0.8, 1, 3), CLVS(0.3, 0.8, 0.0)),
    Stack.of(KVSmooth(0.6, 5, 0.4, 0, 3, target="attention_output"), PAI(0.5, 0, 3)),
    Stack.of(PAI(0.5, 0, 3), SPARC(1.4, 0.5, 0.1, 1), KVSmooth(0.9, 15, 0.2, 1, 3)),
]


@functools.cache
def vlm(kind="grouped"):
    return small_vlm(small_llava(0, kv_heads={"grouped": 2, "multi-head": 4, "one": 1}[kind]))


@functools.cache
def references(kind):
    return References(vlm(kind), IMAGES, 20)


def expected(kind, image, method, max_new_tokens):
    return references(kind)(image, method, max_new_tokens)


def check(captions, requests, kind, max_new_tokens):
    seen = {caption.tag: caption for caption in captions}
    assert len(seen) == len(captions)
    for caption in captions:
        request = requests[caption.tag]
        image = next(index for index, image in enumerate(IMAGES) if image is request.image)
        tokens, reason = expected(kind, image, request.method, max_new_tokens)
        assert (caption.token_ids, caption.finish_reason, caption.image_id) == (tokens, reason, request.image_id)
    return seen


def requests_of(pairs):
    return [
        CaptionRequest(100 + image, IMAGES[image], METHODS[method], tag=n) for n, (image, method) in enumerate(pairs)
    ]
