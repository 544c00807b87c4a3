"""A model that puts shuffled sentences in order, its loss included.

    input_ids -> encoder -> one vector per sentence -> dropout -> linear head -> one score per sentence

Sorting the sentences by their scores gives the order. With `head="pairs"` the head gives a logit for each pair instead.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

# Not all are used here. When transformers saves a model loaded with `trust_remote_code`, it copies the files that this
# one imports: without these lines the pipeline would be missing in a model pushed again. And 4.46 looks no further
# than this file's own imports when it copies code out of a folder, so every file of the package must be named here.
from .aggregation_sentence_ordering import combine_groups  # noqa: F401
from .answer_sentence_ordering import in_order  # noqa: F401
from .arrangement_sentence_ordering import arrangements  # noqa: F401
from .collator_sentence_ordering import DataCollatorForSentenceOrdering
from .configuration_sentence_ordering import SentenceOrderingConfig, is_scratch_encoder
from .decoding_sentence_ordering import decoded_ranks
from .encoders_sentence_ordering import (
    build_encoder,
    config_around,
    load_encoder,
    scratch_config,
)
from .encoding_sentence_ordering import StoryTokenizer  # noqa: F401
from .fixed_points_sentence_ordering import FixedPoints  # noqa: F401
from .handler import EndpointHandler  # noqa: F401
from .long_texts_sentence_ordering import score_long_text  # noqa: F401
from .objectives_sentence_ordering import OBJECTIVES, PADDING, check_head, compute_metrics, objective_loss
from .pipeline_sentence_ordering import SentenceOrderingPipeline  # noqa: F401
from .reading_sentence_ordering import (
    ContextLayer,
    PairHead,
    ScoreHead,
    init_layer,
    judge_sentences,
    locate_sentences,
    read_sentences,
)
from .repository_sentence_ordering import load_guide_model, load_tokenizer, with_marker
from .scoring_sentence_ordering import score_stories  # noqa: F401
from .sharing_sentence_ordering import add_tokenizer, complete_card, upload


@dataclass
class SentenceOrderingOutput(ModelOutput):
    """What [`SentenceOrderingModel`] returns.

    Attributes:
        loss: scalar, the objective averaged over the stories that have a label; only with labels.
        logits: `(batch, max_sentences)`, float32 (float64 of a float64 model): the score of each sentence in input
            order, -100 where a story has no such sentence, as `Trainer` pads predictions.
        sentence_mask: `(batch, max_sentences)`, bool: true where there is a sentence with a score.
        pair_logits: `(batch, max_sentences, max_sentences)`, float32 (float64 of a float64 model): [b, i, j] is the
            logit of «sentence i stands before sentence j», 0 on the diagonal and where a story has no such sentence;
            None for `head="score"`, where it would be the difference of two scores.
        ranks: `(batch, max_sentences)`, float32: the position of each sentence in the order decoded from the pair
            logits, see `decoded_ranks`; for metrics, and so only with pair logits and labels and outside of training.
        hidden_states: the encoder's hidden states, `(batch, tokens, width)` each, if asked for.
        attentions: the encoder's attention weights, `(batch, heads, tokens, tokens)` each, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    sentence_mask: Tensor | None = None
    pair_logits: Tensor | None = None
    ranks: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SentenceOrderingModel(PreTrainedModel):
    """An encoder with a head that scores each sentence, and the objective it is trained with."""

    config_class = SentenceOrderingConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    # The loss is averaged in `forward`: Trainer still has to divide it by the number of accumulation steps.
    accepts_loss_kwargs = False
    # Quantizers of transformers skip these modules: a single row of weights is not worth the rounding.
    _keep_in_fp32_modules = ["head"]

    def __init__(self, config: SentenceOrderingConfig) -> None:
        if not isinstance(config, PretrainedConfig):
            raise TypeError(
                f"SentenceOrderingModel takes a config, not {config!r}. SentenceOrderingModel.from_encoder(name) makes "
                "a new model around an encoder, SentenceOrderingModel.from_pretrained(name) loads a trained one"
            )
        super().__init__(config)
        if config.backbone_config is None:
            raise ValueError("the config has no backbone_config; make a model with SentenceOrderingModel.from_encoder")
        if config.objective not in OBJECTIVES:
            raise ValueError(f"there is no objective {config.objective!r}; there is: {', '.join(sorted(OBJECTIVES))}")
        check_head(config.objective, config.head)
        self.encoder: Any = build_encoder(config.backbone_config)
        config.backbone_config = self.encoder.config  # one config, which resizing the embeddings keeps up to date
        self.dropout = nn.Dropout(config.head_dropout)
        width, pairs = config.output_size, config.head == "pairs"
        self.context = nn.ModuleList(ContextLayer(width, config.head_dropout) for _ in range(config.context_layers))
        self.head: Any = PairHead(width, config.pair_size) if pairs else ScoreHead(width, 1)
        # For `device_map="auto"`. An encoder that does not say how it may be split stays in one piece.
        is_splittable = getattr(self.encoder, "_no_split_modules", None) is not None
        self._no_split_modules = [] if is_splittable else [type(self.encoder).__name__]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Pretrained encoders initialise their own layers, the small ones keep torch's initial weights.
        if any(module is own for own in (*self.head.modules(), *self.context.modules())):
            init_layer(module, self.config.initializer_range)

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the weights, or, if accelerate keeps them elsewhere, where it computes."""
        device: torch.device = super().device
        if device.type != "meta":
            return device
        hooks = [module._hf_hook for module in self.modules() if hasattr(module, "_hf_hook")]
        hooks = [one for hook in hooks for one in getattr(hook, "hooks", [hook])]
        devices = [hook.execution_device for hook in hooks if getattr(hook, "execution_device", None) is not None]
        return torch.device(devices[0]) if devices else device

    def get_input_embeddings(self) -> nn.Embedding:
        """The encoder's token embedding."""
        embedding: nn.Embedding = self.encoder.get_input_embeddings()
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the encoder's token embedding."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        marker_positions: Tensor | None = None,
        labels: Tensor | None = None,
        num_stories: Tensor | float | None = None,
        is_twin: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SentenceOrderingOutput | tuple[Any, ...]:
        """Scores each sentence, and compares the scores with the labels if there are any.

        Args:
            input_ids: `(batch, tokens)`, int64: marker, sentence, marker, sentence, …, separator.
            attention_mask: `(batch, tokens)`, 1 for tokens, 0 for padding on the right; all ones if missing.
            token_type_ids: `(batch, tokens)`, for encoders that have them; not needed.
            marker_positions: `(batch, max_sentences)`, int64, where each sentence's marker stands, -1 where a story
                has no such sentence. Without it the markers are searched for, which waits for the device.
            labels: `(batch, max_sentences)`, int64, the original index (0 … N-1) of each sentence, -100 for padding; or
                `(batch, tokens)`, the index at each marker and -100 elsewhere.
            num_stories: see `objective_loss`.
            is_twin: `(batch,)`, bool, the row is another shuffle of the story in the row before it; for the
                consistency term in training.
            inputs_embeds: `(batch, tokens, embedding width)`, token embeddings instead of `input_ids`. Markers are
                found by their embedding, so that prompts of PEFT may stand before them.
            output_attentions: return the encoder's attention weights; the config's setting if None.
            output_hidden_states: return the encoder's hidden states; the config's setting if None.
            return_dict: return a tuple if false.

        Raises:
            ValueError: if labels and markers do not belong together, there are no markers, or the attention
                implementation returns no weights.
        """
        shown = inputs_embeds if input_ids is None else input_ids
        if shown is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if attention_mask is None:
            attention_mask = torch.ones(shown.shape[:2], dtype=torch.long, device=shown.device)
        content = attention_mask.bool()
        marker_positions, labels = locate_sentences(
            lambda: self._is_token(self.config.marker_token_id, shown) & content,
            marker_positions,
            labels,
            content.shape,
            is_exact=input_ids is not None,
        )
        encoded = self._encode(
            {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids},
            attention_mask,
            self.config.output_attentions if output_attentions is None else output_attentions,
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )

        sentence_mask = marker_positions >= 0
        if self.config.separator_token_id is not None:
            content = content & ~self._is_token(self.config.separator_token_id, shown)
        bidirectional = bool(getattr(self.config.backbone_config, "bidirectional", False))
        vectors = read_sentences(
            encoded.last_hidden_state,
            marker_positions,
            content,
            reading=self.config.reading,
            bidirectional=bidirectional,
        )
        for layer in self.context:
            vectors = layer(vectors, sentence_mask)
        logits, pair_logits = judge_sentences(self.dropout(vectors), sentence_mask, self.head, self.config.head)
        loss = ranks = None
        if labels is not None:
            if pair_logits is not None and not self.training:
                ranks = decoded_ranks(pair_logits, logits, sentence_mask).to(logits)
                ranks = torch.where(sentence_mask, ranks, PADDING)
            loss = objective_loss(
                logits,
                labels,
                sentence_mask,
                objective=self.config.objective,
                target_scale=self.config.target_scale,
                num_stories=num_stories,
                pair_logits=pair_logits,
                consistency=self.config.consistency if self.training else 0.0,
                is_twin=is_twin,
            )
        output = SentenceOrderingOutput(
            loss=loss,
            logits=logits,
            sentence_mask=sentence_mask,
            pair_logits=pair_logits,
            ranks=ranks,
            hidden_states=getattr(encoded, "hidden_states", None),
            attentions=getattr(encoded, "attentions", None),
        )
        return output if return_dict is not False else output.to_tuple()

    def _is_token(self, token_id: int | None, shown: Tensor) -> Tensor:
        """Where a token stands, `(batch, tokens)`, in ids or in embeddings."""
        if shown.dim() == 2:
            return shown == (-1 if token_id is None else token_id)
        embedding = self.get_input_embeddings()(torch.tensor([token_id], device=shown.device))
        return (shown == embedding.to(shown.dtype)).all(dim=-1)

    def _encode(self, inputs: dict[str, Any], attention_mask: Tensor, attentions: bool, hidden_states: bool) -> Any:
        options = {name: value for name, value in inputs.items() if value is not None}
        options |= {"output_attentions": True} if attentions else {}
        options |= {"output_hidden_states": True} if hidden_states else {}
        encoded = self.encoder(attention_mask=attention_mask, **options)
        if attentions and any(weights is None for weights in encoded.attentions or [None]):
            implementation = self.config.backbone_config._attn_implementation
            raise ValueError(
                f"the attention implementation {implementation!r} does not return attention weights: load the model "
                'with attn_implementation="eager"'
            )
        return encoded

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers; the tokenizer of the repository that the model was loaded from is saved as well.

        So whoever loads a model, trains it further with code that knows nothing of this package and saves it, has a
        model that loads in full. A tokenizer that is in the folder already stays.
        """
        # What transformers pushes here it pushes before the tokenizer is there; `push_to_hub` does it in order.
        push = kwargs.pop("push_to_hub", False)
        names = ("repo_id", "commit_message", "private", "token", "revision", "create_pr")
        options = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            add_tokenizer(self.config, save_directory)
            if push:
                self.push_to_hub(
                    options.pop("repo_id", None) or os.path.basename(os.path.abspath(save_directory)), **options
                )

    def _upload_modified_files(
        self,
        working_dir: str | os.PathLike[str],
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        **options: Any,
    ) -> Any:
        # The last step of `push_to_hub` in transformers, from 4.46 to 5: theirs would leave old weights in place.
        complete_card(working_dir, self.config, repo_id)
        return upload(working_dir, repo_id, files_timestamps, commit_message=commit_message, **options)

    compute_metrics = staticmethod(compute_metrics)

    def data_collator(self, tokenizer: Any, **options: Any) -> DataCollatorForSentenceOrdering:
        """The collator for this model; the options are fields of [`DataCollatorForSentenceOrdering`]."""
        return DataCollatorForSentenceOrdering(tokenizer, self.config, **options)

    @staticmethod
    def load_tokenizer(name_or_path: str, **kwargs: Any) -> Any:
        """The tokenizer that belongs to an encoder or a model of ours, marker included; see `load_tokenizer`."""
        return load_tokenizer(name_or_path, **kwargs)

    @classmethod
    def from_encoder(
        cls,
        name_or_path: str,
        *,
        tokenizer: Any = None,
        encoder_kwargs: dict[str, Any] | None = None,
        **config: Any,
    ) -> SentenceOrderingModel:
        """A model with a new head around a pretrained encoder, or around a small one with random weights.

        Args:
            name_or_path: any encoder that `AutoModel` can load, by id or folder; or `"cnn"` or `"rnn"`.
            tokenizer: the tokenizer with the marker in it; needed for `"cnn"` and `"rnn"`, else loaded.
            encoder_kwargs: for `AutoModel.from_pretrained` and its config (`revision`, `token`,
                `trust_remote_code`, `attn_implementation`).
            **config: fields of `SentenceOrderingConfig`; for `"cnn"` and `"rnn"` those of their configs as well.

        Returns:
            The model in float32 and in eval mode, as `from_pretrained` gives it.

        Raises:
            ValueError: for causal and encoder-decoder models, or a small encoder without a tokenizer.
            OSError: if there is no such model, or it has no safetensors file.
        """
        if is_scratch_encoder(name_or_path):
            return cls(scratch_config(name_or_path, tokenizer, config)).eval()
        encoder, tokenizer = load_encoder(name_or_path, tokenizer, encoder_kwargs or {})
        config.setdefault("base_model", name_or_path)
        # A separator that is the marker, too, would be one sentence more.
        separator = tokenizer.sep_token_id
        config.setdefault("separator_token_id", None if separator == tokenizer.cls_token_id else separator)
        return cls._around(encoder, tokenizer, config).eval()

    @classmethod
    def from_token_classification(
        cls, name_or_path: str, *, encoder: str | None = None, tokenizer: Any = None, **config: Any
    ) -> SentenceOrderingModel:
        """Rescues a checkpoint trained the way of the 2021 guide.

        It is a `…ForTokenClassification` with one label, or a `…ForQuestionAnswering`, whose start logits are the
        scores; as a folder or repository of transformers, or as a Lightning `.ckpt` file. The scores are those of
        the old model at its markers. No separator is set, since the guide's inputs had none; pass
        `separator_token_id` for a model that was trained with one.

        Args:
            name_or_path: the old checkpoint, by id, folder or file.
            encoder: the encoder it was trained from, by id or folder; for a file, which holds weights alone.
            tokenizer: its tokenizer; if None, that of the encoder or the checkpoint.
            **config: fields of `SentenceOrderingConfig`.

        Raises:
            ValueError: if the checkpoint has no such head, more labels, or a head that is more than one linear layer.
        """
        if config.get("head", "score") != "score" or config.get("context_layers"):
            raise ValueError("a checkpoint of the guide has weights for the head 'score' alone")
        old, head = load_guide_model(name_or_path, encoder)
        tokenizer = load_tokenizer(encoder or name_or_path) if tokenizer is None else with_marker(tokenizer)
        config.setdefault("base_model", encoder or name_or_path)
        model = cls._around(old, tokenizer, config)
        model.head.load_state_dict({name: weight[:1] for name, weight in head.state_dict().items()})
        return model.eval()

    @classmethod
    def _around(cls, encoder: PreTrainedModel, tokenizer: Any, fields: dict[str, Any]) -> SentenceOrderingModel:
        model = cls(config_around(encoder, tokenizer, fields))
        missing, _ = model.encoder.load_state_dict(encoder.state_dict(), strict=False)
        if missing:
            raise ValueError(f"the encoder's checkpoint has no weights for {', '.join(missing[:3])}")
        return model


SentenceOrderingModel.register_for_auto_class("AutoModel")
