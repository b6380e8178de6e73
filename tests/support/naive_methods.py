"""Methods as the design reads them: one caption, one token at a time, one head after another, on lists of float64.

Nothing of the product's methods is used. The prompt's embeddings and positions are taken from the model. It is run up
to the image's end at once, for no method acts before; every token after, of the prompt or written, is a forward pass of
its own, whose attention is computed here.
"""

import math
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from naive_kvsmooth import _entropy, _factor
from transformers import AttentionInterface, DynamicCache
from transformers.image_processing_utils import select_best_resolution

from kvtune.hf import CACHE, text_decoder


@dataclass
class NaiveCaption:
    tokens: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)


class Sight:
    """What methods may know while a caption is written: the prompt, the newest token's place, what is cached."""

    def __init__(self, model, inputs):
        self.model, self.decoder, self.inputs = model, text_decoder(model), inputs
        self.layers = len(self.decoder.layers)
        self.layer_inputs = [None] * self.layers  # of the plain prompt, [tokens, width] each
        with ExitStack() as undo, torch.no_grad():
            undo.callback(self.decoder.register_forward_pre_hook(self._keep_prompt, with_kwargs=True).remove)
            for number, layer in enumerate(self.decoder.layers):
                undo.callback(layer.register_forward_pre_hook(self._keeper(number), with_kwargs=True).remove)
            model(**inputs, use_cache=True)
        image = getattr(model.config, "image_token_id", None)
        self.visual = [place for place, token in enumerate(inputs["input_ids"][0].tolist()) if token == image]
        self.first, self.end = self.visual[0], self.visual[-1] + 1  # of the image
        self.length = inputs["input_ids"].shape[1]
        self.cache = DynamicCache(config=self.decoder.config)
        self.place = -1

    def _keep_prompt(self, decoder, arguments, keywords):
        self.embeddings = keywords["inputs_embeds"]
        positions = keywords.get("position_ids")
        if positions is None:
            positions = torch.arange(self.embeddings.shape[1])[None]
        if positions.ndim == 3 and len(positions) == 4:  # the first is for the mask alone
            positions = positions[1:]
        self.positions = positions

    def _keeper(self, number):
        def keep(layer, arguments, keywords):
            self.layer_inputs[number] = (arguments[0] if arguments else keywords["hidden_states"])[0]

        return keep

    @property
    def is_generated(self):
        return self.place >= self.length

    @property
    def is_newest(self):
        """The last prompt token or one that was generated."""
        return self.place >= self.length - 1

    @property
    def is_after_image(self):
        return self.place >= self.end

    def position(self, place):
        """Rotary position of a token, one a rotary axis; text goes on by one a token."""
        known = self.positions.shape[-1]
        at = self.positions[..., 0, min(place, known - 1)].reshape(-1).tolist()
        return [axis + max(0, place - known + 1) for axis in at]

    def run(self, embeddings, places, **given):
        """The decoder's output for the next tokens."""
        self.place = places[-1]
        at = torch.tensor([self.position(place) for place in places]).T[:, None]  # [axes, 1, tokens]
        return self.decoder(
            inputs_embeds=embeddings,
            position_ids=at if len(at) > 1 else at[0],
            **{CACHE: self.cache},
            use_cache=True,
            **given,
        ).last_hidden_state


class Nothing:
    """What each method may do; those below do some of it. Scores and weights are [head][position]."""

    def scores(self, sight, layer, scores):
        pass

    def weights(self, sight, layer, weights):
        pass

    def weights_of_values(self, sight, layer, weights):
        pass

    def output(self, sight, layer, output):  # [heads, head_dim]
        pass

    def after_layer(self, sight, layer, hidden):
        pass

    def end(self, sight):
        pass

    def hooks(self, sight):
        return []


class Pai(Nothing):
    def __init__(self, alpha, start_layer, end_layer):
        self.alpha, self.layers = alpha, range(start_layer, end_layer)

    def scores(self, sight, layer, scores):
        if sight.is_newest and layer in self.layers:
            for of_head in scores:
                for j in sight.visual:
                    of_head[j] += self.alpha * abs(of_head[j])


class MiddleLayers(Nothing):
    def __init__(self, alpha, start_layer, end_layer):
        self.alpha, self.layers = alpha, range(start_layer, end_layer)

    def scores(self, sight, layer, scores):
        if sight.is_newest and layer in self.layers:
            for j in sight.visual:
                mean = sum(abs(of_head[j]) for of_head in scores) / len(scores)
                for of_head in scores:
                    of_head[j] += self.alpha * mean


class Vaf(Nothing):
    def __init__(self, visual_gain, system_gain, start_layer, end_layer):
        self.visual_gain, self.system_gain, self.layers = visual_gain, system_gain, range(start_layer, end_layer)

    def scores(self, sight, layer, scores):
        if sight.is_after_image and layer in self.layers:
            for of_head in scores:
                for j in sight.visual:
                    of_head[j] *= self.visual_gain
                for j in range(sight.first):
                    of_head[j] *= self.system_gain


class Sparc(Nothing):
    def __init__(self, alpha, beta, tau, layer):
        self.alpha, self.beta, self.tau, self.layer = alpha, beta, tau, layer

    def weights(self, sight, layer, weights):
        if layer != self.layer or not sight.is_newest:
            return
        watched = {j: sum(of_head[j] for of_head in weights) / len(weights) for j in sight.visual}
        if not sight.is_generated:
            self.mean, self.gain = watched, dict.fromkeys(sight.visual, 1.0)
            self.next_gain = dict(self.gain)
            return
        for j in sight.visual:
            if (watched[j] - self.mean[j]) / self.mean[j] >= self.tau:
                self.next_gain[j] *= self.alpha
            self.mean[j] = (1 - self.beta) * watched[j] + self.beta * self.mean[j]

    def weights_of_values(self, sight, layer, weights):
        if sight.is_generated:
            for of_head in weights:
                for j in sight.visual:
                    of_head[j] *= self.gain[j]

    def end(self, sight):
        if sight.is_generated:
            self.gain = dict(self.next_gain)


class AdHh(Nothing):
    def __init__(self, heads, threshold):
        self.heads, self.threshold = heads, threshold

    def weights(self, sight, layer, weights):
        if not sight.is_newest:
            return
        for at, head in self.heads:
            if at == layer and sum(weights[head][sight.end :]) >= self.threshold:
                for j in range(sight.end, len(weights[head])):
                    weights[head][j] = 0.0


class Var(Nothing):
    def __init__(self, tau, rho, p, sink_dims):
        self.tau, self.rho, self.p, self.dims, self.sinks = tau, rho, p, sink_dims, {}

    def weights(self, sight, layer, weights):
        if layer < 2 or not sight.is_after_image:
            return
        if layer not in self.sinks:
            dims = self._found(sight) if self.dims == "auto" else self.dims
            sizes = [[abs(float(_normed(sight, layer, at)[d])) for d in dims] for at in range(sight.length)]
            self.sinks[layer] = {at for at, of_token in enumerate(sizes) if max(of_token) > self.tau}
        sinks = self.sinks[layer]
        visual_sinks = [j for j in sight.visual if j in sinks]
        others = [j for j in sight.visual if j not in sinks]
        if not visual_sinks:
            return
        for of_head in weights:
            on_image = sum(of_head[j] for j in sight.visual)
            share = sum(of_head[j] for j in visual_sinks) / sum(of_head[j] + 1e-6 for j in sight.visual)
            receiving = sum(of_head[j] for j in others)
            if on_image < 0.2 or share > self.rho or not receiving:
                continue
            freed = 0.0
            for j in sinks:
                if j < len(of_head):
                    freed += (1 - self.p) * of_head[j]
                    of_head[j] *= self.p
            for j in others:
                of_head[j] += freed * of_head[j] / receiving

    def _found(self, sight):
        """The two dimensions in which the first token's inputs are largest, in the mean over layers 2 to the last."""
        layers = range(2, sight.layers)
        mean = sum(_normed(sight, layer, 0).abs() for layer in layers) / len(layers)
        return mean.argsort(descending=True)[:2].tolist()


def _normed(sight, layer, place):
    hidden = sight.layer_inputs[layer][place]
    return hidden / math.sqrt(float((hidden * hidden).mean()) + 1e-6)


class Dscr(Nothing):
    def __init__(self, sigma_d, sigma_s, alpha, beta, start_layer, end_layer, target, depth):
        assert depth == "none"  # generate() has no picture
        self.width, self.exponent, self.target, self.layers = sigma_s, beta, target, range(start_layer, end_layer)
        self.mixed = None

    def scores(self, sight, layer, scores):
        if sight.is_newest and layer in self.layers:
            for of_head in scores:
                before = list(of_head)
                for j, column in self._columns(sight).items():
                    of_head[j] = sum(weight * before[i] for i, weight in column.items())

    def weights_of_values(self, sight, layer, weights):
        if sight.is_newest and layer in self.layers and self.target == "kv":
            for of_head in weights:
                before = list(of_head)
                for j in self._columns(sight):
                    of_head[j] = 0.0
                for j, column in self._columns(sight).items():  # the value of j is a mean of the others'
                    for i, weight in column.items():
                        of_head[i] += weight * before[j]

    def _columns(self, sight):
        """For each visual token that has a place what the others weigh in it."""
        if self.mixed is None:
            place_of = dict(zip(sight.visual, naive_places(sight.model, sight.inputs), strict=True))
            placed = {j: place for j, place in place_of.items() if place is not None}
            self.mixed = {}
            for j, (x, y) in placed.items():
                near = {
                    i: math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * self.width**2)) ** self.exponent
                    for i, (u, v) in placed.items()
                    if i != j
                }
                self.mixed[j] = {i: weight / sum(near.values()) for i, weight in near.items()}
        return self.mixed


def naive_places(model, inputs):
    """The middle of what each visual token sees, across and down, 0 to 1 of the picture; None for a line's end."""
    if model.config.model_type == "qwen2_5_vl":
        return _cells(*(side // 2 for side in inputs["image_grid_thw"][0, 1:].tolist()))  # four patches are a token
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    if model.config.model_type == "llava":
        return _cells(side, side)
    height, width = inputs["image_sizes"][0].tolist()
    tall, wide = (
        side * edge // vision.image_size
        for edge in select_best_resolution((height, width), model.config.image_grid_pinpoints)
    )
    # The picture, enlarged as far as it goes, stands in the middle of a canvas of whole tiles.
    scale = min(tall / height, wide / width)
    above, left = (tall - height * scale) / 2, (wide - width * scale) / 2
    places = _cells(side, side)
    for down in range(int(above), tall - int(above)):
        for across in range(int(left), wide - int(left)):
            x, y = (across + 0.5 - left) / (wide - 2 * left), (down + 0.5 - above) / (tall - 2 * above)
            places.append((min(max(x, 0), 1), min(max(y, 0), 1)))
        places.append(None)
    return places


def _cells(rows, columns):
    return [((across + 0.5) / columns, (down + 0.5) / rows) for down in range(rows) for across in range(columns)]


class Clvs(Nothing):
    def __init__(self, alpha, beta, threshold):
        self.alpha, self.beta, self.threshold = alpha, beta, threshold
        self.queries, self.keys = [], []  # of layer 0, before rotation, [heads, head_dim] each

    def hooks(self, sight):
        attention = sight.decoder.layers[0].self_attn
        size = attention.head_dim

        def keeper(kept):
            return lambda module, given, output: kept.extend(output[0].unflatten(-1, (-1, size)))

        return [
            attention.q_proj.register_forward_hook(keeper(self.queries)),
            attention.k_proj.register_forward_hook(keeper(self.keys)),
        ]

    def scores(self, sight, layer, scores):
        if layer > 0 or not sight.is_newest:
            return
        at = self._unified(sight, sight.place)
        keys = [_rotated(sight, key, self._unified(sight, place)) for place, key in enumerate(self.keys)]
        query = _rotated(sight, self.queries[-1], at)
        share = len(query) // len(keys[0])
        for head, of_head in enumerate(scores):
            for j, key in enumerate(keys):
                of_head[j] = float(query[head] @ key[head // share]) / math.sqrt(query.shape[-1])

    def _unified(self, sight, place):
        if place < sight.first:
            return sight.position(place)
        return [axis + max(0, place - sight.end + 1) for axis in sight.position(sight.first)]

    def weights(self, sight, layer, weights):
        if not sight.is_newest:
            return
        most = {j: max(of_head[j] for of_head in weights) for j in sight.visual}
        if layer == 0:
            self.memory, self.ended = most, False
        elif not self.ended:
            for of_head in weights:
                for j in sight.visual:
                    of_head[j] = self.alpha * of_head[j] + (1 - self.alpha) * self.memory[j]
                total = sum(of_head)
                of_head[:] = [weight / total for weight in of_head]
            for j in sight.visual:
                self.memory[j] = self.beta * self.memory[j] + (1 - self.beta) * most[j]

    def after_layer(self, sight, layer, hidden):
        if sight.is_newest and layer > sight.layers // 2:
            logits = sorted(sight.model.get_output_embeddings()(hidden).tolist(), reverse=True)[:10]
            exps = [math.exp(logit - logits[0]) for logit in logits]
            shares = [one / sum(exps) for one in exps]
            if -sum(p * math.log(p) for p in shares if p) / math.log(10) < self.threshold:
                self.ended = True


def _rotated(sight, vectors, at):
    """Rotary embedding of two halves, with the sections of several axes where there are any."""
    config = sight.decoder.config
    half = vectors.shape[-1] // 2
    sections = (config.rope_parameters or {}).get("mrope_section") or [half]
    axes = [axis for axis, wide in enumerate(sections) for _ in range(wide)]
    angles = [at[axis] * config.rope_parameters["rope_theta"] ** (-n / half) for n, axis in enumerate(axes)]
    cos = torch.tensor([math.cos(angle) for angle in angles], dtype=vectors.dtype)
    sin = torch.tensor([math.sin(angle) for angle in angles], dtype=vectors.dtype)
    first, second = vectors[:, :half], vectors[:, half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=1)


class KvSmooth(Nothing):
    def __init__(self, start_layer, end_layer, **parameters):
        self.layers, self.parameters = range(start_layer, end_layer), parameters
        self.queues, self.entropies, self.before = {}, {}, {}

    def weights(self, sight, layer, weights):
        self.entropies[layer] = _entropy(torch.tensor(weights, dtype=torch.float64))

    def output(self, sight, layer, output):
        if layer not in self.layers or not sight.is_newest or self.parameters["target"] != "attention_output":
            return
        if sight.is_generated:
            factor = self._factor(layer)
            output[:] = (1 - factor) * output + factor * self.before[layer]
        self.before[layer] = output.clone()

    def end(self, sight):
        if not sight.is_generated:
            return
        for layer in self.layers:
            cached = sight.cache.layers[layer]
            smoothed = {"kv": (cached.keys, cached.values), "k": (cached.keys,)}.get(self.parameters["target"], ())
            factor = self._factor(layer) if smoothed else 0.0
            for tensor in smoothed:
                new, old = tensor[0, :, -1].clone(), tensor[0, :, -2].clone()
                tensor[0, :, -1] = (1 - factor) * new + factor * old

    def _factor(self, layer):
        queue = self.queues.setdefault(layer, deque(maxlen=self.parameters["queue_length"]))
        return _factor(self.entropies[layer], queue, self.parameters)


NAIVE = {
    "pai": Pai,
    "middle_layers": MiddleLayers,
    "vaf": Vaf,
    "sparc": Sparc,
    "ad_hh": AdHh,
    "var": Var,
    "clvs": Clvs,
    "dscr": Dscr,
    "kvsmooth": KvSmooth,
}


def naive_caption(model, inputs, stack, steps, forced=None):
    """Greedy decoding of one row without padding, or what is said of the tokens that are ``forced``.

    ``stack`` is a list of (name, parameters) in the order in which they act; an empty one is the plain model.
    """
    sight = Sight(model, inputs)
    methods = [NAIVE[name](**parameters) for name, parameters in stack]
    config = sight.decoder.config
    before, config._attn_implementation = config._attn_implementation, "sdpa"
    caption = NaiveCaption()
    try:
        with ExitStack() as undo, torch.no_grad():
            for method in methods:
                for hook in method.hooks(sight):
                    undo.callback(hook.remove)
            for number, layer in enumerate(sight.decoder.layers):
                undo.callback(layer.register_forward_hook(_shower(number, sight, methods)).remove)
            sight.run(sight.embeddings[:, : sight.end], range(sight.end))
            config._attn_implementation = "naive"
            for place in range(sight.end, sight.length):
                logits = _step(sight, methods, sight.embeddings[:, place : place + 1])
            for step in range(steps):
                token = int(logits.argmax()) if forced is None else forced[step]
                caption.tokens.append(token)
                caption.logits.append(logits)
                if step + 1 < steps:
                    logits = _step(sight, methods, model.get_input_embeddings()(torch.tensor([[token]])))
    finally:
        config._attn_implementation = before
    return caption


def _step(sight, methods, embedding):
    hidden = sight.run(embedding, [sight.place + 1], naive=(sight, methods))
    for method in methods:
        method.end(sight)
    return sight.model.get_output_embeddings()(hidden)[0, -1]


def _shower(number, sight, methods):
    def show(layer, given, output):
        for method in methods:
            method.after_layer(sight, number, (output[0] if isinstance(output, tuple) else output)[0, -1])

    return show


def _attention(module, query, key, value, attention_mask, scaling, naive, **others):
    sight, methods = naive
    share = query.shape[1] // key.shape[1]
    scores = [(key[0, head // share] @ one[0] * scaling).tolist() for head, one in enumerate(query[0])]
    for method in methods:
        method.scores(sight, module.layer_idx, scores)
    weights = torch.softmax(torch.tensor(scores, dtype=torch.float64), dim=-1).tolist()
    for method in methods:
        method.weights(sight, module.layer_idx, weights)
    for method in methods:
        method.weights_of_values(sight, module.layer_idx, weights)
    output = [torch.tensor(one, dtype=torch.float64) @ value[0, head // share] for head, one in enumerate(weights)]
    output = torch.stack(output)
    for method in methods:
        method.output(sight, module.layer_idx, output)
    return output[None, None], None


AttentionInterface.register("naive", _attention)
