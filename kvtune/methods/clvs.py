"""CLVS: attention on the image is carried from layer to layer, until the model is sure of the next token."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from kvtune.errors import RequestError
from kvtune.methods.facts import Fact, PromptFacts
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import number
from kvtune.methods.row_state import ActsFrom, RowState, fitted, moved, wide, widened

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.decoder import Decoder
    from kvtune.methods.seen import Seen, SeenPositions

LIKELIEST = 10
"""Tokens over which uncertainty is measured (k in the authors' code)."""


LEAST_SCORE = -1e30
"""Scores below are of positions that a row does not see."""


_PAPER = "section 4.1 of the paper"


@dataclasses.dataclass(frozen=True)
class CLVS(Method):
    """Cross-layer visual smoothing.

    For each token anew: in layer 0 attention is computed as if all visual tokens stood at the first one's position,
    and what follows closed up; the maximum over heads of its weights on visual tokens is the memory M. In each later
    layer the weights of every head on visual tokens become ``alpha a + (1 - alpha) M`` and the row is divided by its
    sum, and M becomes ``beta M + (1 - beta) max a`` of the weights before. After a layer beyond the middle one its
    output goes through the projection to the vocabulary, without the last norm: once the entropy of the ten likeliest
    tokens, over ln 10, is below ``threshold``, the rest of the layers is left alone. From the last prompt token on.
    The authors' code (ZhQingan/CLVS) does this for an answer's first token; to begin anew at each is a reading.

    Parameters
    ----------
    alpha
        Share of a head's own weights, 0 to 1; 0.8 in the code.
    beta
        Share of the memory that stays, 0 to 1; 0.8 for LLaVA-1.5, 0.7 for LLaVA-NeXT (Llama 3's, in the code) and
        Qwen2.5-VL in the paper.
    threshold
        Uncertainty below which it ends, 0 to 1; 0.5 in paper and code.
    """

    name: ClassVar[str] = "clvs"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(model, {"alpha": 0.8, "beta": beta, "threshold": 0.5}, _PAPER)
        for model, beta in (("llava-1.5", 0.8), ("llava-next", 0.7), ("qwen2.5-vl", 0.7))
    )

    alpha: float = number(0.8, low=0, high=1, search=(0.0, 1.0, 0.05))
    beta: float = number(0.8, low=0, high=1, search=(0.0, 1.0, 0.05))
    threshold: float = number(0.5, low=0, high=1, search=(0.0, 1.0, 0.05))

    def check_model(self, decoder: Decoder) -> None:
        super().check_model(decoder)
        if decoder.head is None:
            raise RequestError("clvs looks through the projection to the vocabulary, which the model does not have")
        if getattr(decoder.module, "rotary_emb", None) is None:
            raise RequestError("clvs moves rotary positions, which the model does not have")
        if not hasattr(decoder.module.rotary_emb, "inv_freq"):
            raise RequestError("clvs moves rotary positions of one kind, and this model's layers have several")

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (UnifiedKeys(),)

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """Layer 0's keys of the prompt, and a copy of them in a step."""
        size = decoder.kv_heads * decoder.head_dim * decoder.module.dtype.itemsize
        return 2 * wide(prompt_tokens) * size

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> CLVSRows:
        return CLVSRows(cls, n_rows, decoder, device)


@dataclasses.dataclass(frozen=True)
class Unified:
    """Layer 0's keys of a prompt whose visual tokens share a position, and by how much what follows moved.

    Attributes
    ----------
    keys
        [kv_heads, prompt tokens, head_dim].
    shift
        Positions, as a tensor without axes.
    """

    keys: Tensor
    shift: Tensor

    def to(self, device: Any) -> Unified:
        """The same on ``device``."""
        return Unified(self.keys.to(device), self.shift.to(device))


@dataclasses.dataclass(frozen=True)
class UnifiedKeys(Fact):
    """:class:`Unified` of a prompt."""

    def watch(self, decoder: Decoder, noted: list[Tensor]) -> Sequence[Any]:
        import torch

        from kvtune.hf import rotary_positions

        def keep_positions(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
            embeddings, positions = keywords["inputs_embeds"], keywords.get("position_ids")
            rows, tokens = embeddings.shape[:2]
            if positions is None:
                positions = torch.arange(tokens, device=embeddings.device)[None]
            positions = rotary_positions(positions)
            noted.append(positions.expand(*positions.shape[:-2], rows, tokens))

        def keep_input(module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            noted.append(arguments[0] if arguments else keywords["hidden_states"])

        attention = decoder.module.layers[0].self_attn
        return [
            decoder.module.register_forward_pre_hook(keep_positions, with_kwargs=True),
            attention.register_forward_pre_hook(keep_input, with_kwargs=True),
        ]

    def of_row(self, decoder: Decoder, noted: list[Tensor], row: int, begin: int, visual: Tensor) -> Unified:
        from kvtune.methods.keys_at import keys_at, turned

        length = len(visual)
        positions, hidden = noted[0][..., row : row + 1, -length:], noted[1][row : row + 1, -length:]
        # Numbers that stay on the device, for nobody waits for them; text comes after the image.
        first = visual.int().argmax()
        end = length - visual.flip(0).int().argmax()
        at_first, after = positions[..., first[None]], positions[..., end[None].clamp(max=length - 1)]
        shift = after - at_first - 1
        places = visual.new_ones(length).cumsum(0) - 1
        unified = positions.where(~visual, at_first).where(places < end, positions - shift)
        before, keys = (keys_at(decoder, hidden, where)[0] for where in (positions, unified))
        by = shift.flatten()[0]
        # Queries will be turned back by the shift: see that this is how this model turns in prompts of this length.
        seen = _turns.setdefault(decoder.module, set())
        if length not in seen:
            again = turned(decoder, before[:, -1], -by.expand(len(before)))
            if (again - keys[:, -1]).norm() > 0.02 * keys[:, -1].norm():
                raise RequestError("clvs does not know how the model turns keys by their position")
            seen.add(length)
        return Unified(keys, by)


_turns: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()
"""Decoders, and lengths of prompts, whose keys are known to be turned as here."""


class CLVSRows(RowState[CLVS]):
    """Rows that are sure of their next token, and the prompts' unified keys."""

    def __init__(self, kind: type[CLVS], n_rows: int, decoder: Decoder, device: Any) -> None:
        import torch

        super().__init__(kind, n_rows, decoder, device)
        self._ended = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self._keys: Tensor | None = None
        self._shift = torch.zeros(n_rows, dtype=torch.long, device=device)

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        import torch

        if 0 not in self.decoder.layers_here:  # nobody else looks at these keys
            return
        found = [prompt.noted[UnifiedKeys()] for prompt in prompts]
        longest = max(len(prompt.visual) for prompt in prompts)
        if self._keys is None:
            kv_heads, _, size = found[0].keys.shape
            self._keys = found[0].keys.new_zeros(len(self._ended), kv_heads, size, 0)
        self._keys = widened(self._keys, longest)
        for place, one in enumerate(found):
            self._keys[index[place : place + 1], :, :, : one.keys.shape[1]] = one.keys.transpose(1, 2)
        self._shift[index] = torch.stack([one.shift for one in found])

    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        """In layer 0, those of unified positions, on tokens up to the last visual one; no others change."""
        from kvtune.methods.keys_at import turned
        from kvtune.methods.scaled_products import scaled_products

        if seen.layer > 0:
            return scores
        assert self._keys is not None
        keys = fitted(seen.of_rows(self._keys), seen.prompt)
        n, heads, size = seen.query.shape
        shift = seen.of_rows(self._shift)[:, None].expand(n, heads)
        query = turned(self.decoder, seen.query, -shift).view(n, keys.shape[1], -1, size)
        unified = scaled_products(query, keys.transpose(2, 3), seen.scaling).view(n, heads, -1)
        moves = (seen.system | seen.visual)[:, None] & self.acting(seen)
        prompt = scores[..., : seen.prompt]
        # Positions that are not seen keep their scores.
        prompt.copy_(unified.where(moves & (prompt > LEAST_SCORE), prompt))
        return scores

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        a = weights[..., : seen.prompt]
        highest = a.amax(1, keepdim=True)  # of visual tokens alone it means something
        memory = self.once(seen, "memory", lambda: highest.clone())
        if seen.layer == 0:
            self._ended[seen.rows] = False
            return weights
        mix = self.once(
            seen, "mix", lambda: seen.on_visual(weights) * (1 - self.value(seen, "alpha", weights)) * self.acting(seen)
        )
        goes_on = self.acting(seen)
        if seen.layer > self._first_looked_at:
            goes_on = goes_on & ~seen.of_rows(self._ended)[:, None, None]
            mix = mix * goes_on
        a.lerp_(memory, mix)  # alpha a + (1 - alpha) M
        total = weights.sum(-1, keepdim=True)
        weights /= total.where(goes_on, 1.0)
        # beta M + (1 - beta) max a; where it has ended nobody looks at the memory any more.
        memory.lerp_(highest, self.once(seen, "news", lambda: 1 - self.value(seen, "beta", weights)))
        return weights

    @property
    def _first_looked_at(self) -> int:
        """The first layer whose output says whether the model is sure."""
        return self.decoder.n_layers // 2 + 1

    def after_layer(self, layer: int, hidden: Tensor) -> None:
        """See whether the model is sure of the next token."""
        if not self._first_looked_at <= layer < self.decoder.n_layers - 1:
            return
        logits = self.decoder.head(hidden.to(self.decoder.head.weight.device))
        logits = logits.float() if logits.itemsize < 4 else logits
        likeliest = logits.topk(min(LIKELIEST, logits.shape[-1]), dim=-1, sorted=False).values.log_softmax(-1)
        unsure = (likeliest.exp() * likeliest).sum(-1) / -math.log(LIKELIEST)
        rows = slice(len(hidden))
        self._ended[rows] |= unsure.to(hidden.device) < self.parameter("threshold")[rows]

    def follow(self, other: CLVSRows, seen: Sequence[tuple[SeenPositions, SeenPositions]]) -> None:
        self._ended = other._ended.to(self._ended.device)
        for there, here in seen:
            here.take((type(self), "memory"), there)

    def captured_with(self) -> Hashable:
        keys = self._keys
        return super().captured_with(), None if keys is None else (keys.data_ptr(), keys.shape)

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._ended, self._shift = moved(self._ended, index), moved(self._shift, index)
        if self._keys is not None:
            self._keys = moved(self._keys, index)
