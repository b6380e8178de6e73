"""MiniGPT-4 as a Hugging Face model, built from BLIP-2's vision tower and Q-Former, one Linear, and Llama."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from kvtune.hf import CACHE

LN_VISION_EPS = 1e-5
"""Of LAVIS's ``ln_vision``, PyTorch's default there; the tower's other layer norms have 1e-6."""


class MiniGpt4Config(PreTrainedConfig):
    """Sizes of a MiniGPT-4: EVA ViT-g, BLIP-2's Q-Former and Vicuna-7B v0 where nothing is said.

    Parameters
    ----------
    vision_config, qformer_config, text_config
        Configurations of the parts, or dictionaries of their settings.
    num_query_tokens
        Queries of the Q-Former, which is the number of visual tokens.
    image_token_id
        The id that holds an image's places in ``input_ids``: 0, Vicuna's <unk>, which no text contains because its
        tokenizer falls back to bytes.
    """

    model_type = "minigpt4"
    sub_configs: ClassVar[dict[str, Any]] = {
        "vision_config": Blip2VisionConfig,
        "qformer_config": Blip2QFormerConfig,
        "text_config": LlamaConfig,
    }

    def __init__(
        self,
        vision_config: Blip2VisionConfig | dict[str, Any] | None = None,
        qformer_config: Blip2QFormerConfig | dict[str, Any] | None = None,
        text_config: LlamaConfig | dict[str, Any] | None = None,
        num_query_tokens: int = 32,
        image_token_id: int = 0,
        **settings: Any,
    ) -> None:
        parts = {"vision_config": vision_config, "qformer_config": qformer_config, "text_config": text_config}
        for name, part in parts.items():
            made = self.sub_configs[name](**part) if isinstance(part, dict) else part or self.sub_configs[name]()
            setattr(self, name, made)
        self.num_query_tokens = num_query_tokens
        self.image_token_id = image_token_id
        settings.setdefault("tie_word_embeddings", False)
        super().__init__(**settings)


class MiniGpt4ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """MiniGPT-4: the image's 32 query embeddings stand in the prompt of a Vicuna that never saw an image before.

    As in the published code, vision tower and Q-Former keep float32 weights when the language model is in half
    precision, and with float16 they run under autocast, so that layer norms and the residual stream stay in float32.
    """

    config_class = MiniGpt4Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ["LlamaDecoderLayer", "Blip2EncoderLayer", "Blip2QFormerLayer"]  # noqa: RUF012
    _skip_keys_device_placement = [CACHE]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["vision_model", "query_tokens", "qformer", "language_projection"]  # noqa: RUF012

    def __init__(self, config: MiniGpt4Config) -> None:
        super().__init__(config)
        self.vision_model = Blip2VisionModel._from_config(config.vision_config)
        self.vision_model.post_layernorm.eps = LN_VISION_EPS
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
        self.language_projection = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = LlamaModel._from_config(config.text_config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """The language model's type."""
        return self.lm_head.weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def get_decoder(self) -> LlamaModel:
        return self.language_model

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Embeddings that stand for images, [images, queries, width of the language model].

        Parameters
        ----------
        pixel_values
            Normalised pixels [images, 3, height, width].
        """
        half = self.dtype == torch.float16
        with torch.autocast(pixel_values.device.type, torch.float16, enabled=half):
            image = self.vision_model(pixel_values=pixel_values).last_hidden_state
            queries = self.query_tokens.expand(len(image), -1, -1)
            read = self.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
            features: Tensor = self.language_projection(read)
        return features

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One forward pass.

        Parameters
        ----------
        input_ids
            [rows, tokens], ``image_token_id`` at the places of each row's image.
        pixel_values
            One image a row, [rows, 3, height, width], or None where the images are in the cache already.
        inputs_embeds
            Embeddings in place of ``input_ids``, images included.
        logits_to_keep
            How many positions from the end get logits, 0 for all, or their indices.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if pixel_values is not None:
                features = self.get_image_features(pixel_values).to(inputs_embeds.device, inputs_embeds.dtype)
                places = input_ids == self.config.image_token_id
                if attention_mask is not None and attention_mask.shape == places.shape:
                    places &= attention_mask.bool()
                if places.sum() * features.shape[-1] != features.numel():
                    raise ValueError(f"{int(places.sum())} places in input_ids for embeddings {list(features.shape)}")
                inputs_embeds = inputs_embeds.masked_scatter(places[..., None], features)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        return CausalLMOutputWithPast(
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            **{CACHE: getattr(output, CACHE)},
        )

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *arguments: Any, pixel_values: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Images go in with the prompt, and are in the cache afterwards."""
        parent: Any = super()
        inputs: dict[str, Any] = parent.prepare_inputs_for_generation(input_ids, *arguments, **kwargs)
        if kwargs.get("is_first_iteration") or not kwargs.get("use_cache", True):
            inputs["pixel_values"] = pixel_values
        return inputs


AutoConfig.register(MiniGpt4Config.model_type, MiniGpt4Config, exist_ok=True)
