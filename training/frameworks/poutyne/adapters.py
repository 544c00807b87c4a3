"""Adapters between Poutyne and transformers models of any task.

Poutyne expects batches `(x, y)`, a network that is called with `x`, and losses and metrics that are called with the
network's output and `y`. Transformers models take a dictionary that includes the labels, and return their own loss:

    loader = DataLoader(rows, batch_size=16, collate_fn=TransformerCollator(DataCollatorWithPadding(tokenizer)))
    model = TransformerModel(
        AutoModelForSequenceClassification.from_pretrained(name), "adamw", batch_metrics=[MetricWrapper("accuracy")]
    )
    model.fit_generator(loader, validation_loader, epochs=3)
    model.save_pretrained("a-folder-for-the-hub")

Poutyne's own losses and metrics, by name, are applied to the logits:
`TransformerModel(model, "adamw", "cross_entropy", batch_metrics=["accuracy"])`. With
`ModelWrapper(model, output="logits")` the network returns only the logits, for functions and objects of Poutyne.

The names are those of the library poutyne-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import poutyne
import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

Collate = Callable[[Any], Mapping[str, Any]]
EpochFunction = Callable[[dict[str, np.ndarray], np.ndarray], float | Mapping[str, float]]


class TransformerCollator:
    """Turns the output of a data collator for transformers into `(x, y)`.

    `x` is the whole batch with labels, from which the model computes its loss. It is a plain `dict`, the only mapping
    that Poutyne moves to the device. `y` is the labels: a tensor, or for several names a dictionary.

    Args:
        collate: any collator that returns a mapping: ours, or one of transformers' data collators.
        label_names: key of the labels, or several keys. None for rows without labels: then a batch is `x` alone, for
            `predict_generator`.
    """

    def __init__(self, collate: Collate, label_names: str | Sequence[str] | None = "labels") -> None:
        self.collate = collate
        self.label_names = label_names

    def __call__(self, examples: Any) -> Any:
        """The batch and its labels.

        Raises:
            ValueError: if the batch does not have the labels.
        """
        batch = dict(self.collate(examples))
        if self.label_names is None:
            return batch
        names = [self.label_names] if isinstance(self.label_names, str) else self.label_names
        for name in names:
            if name not in batch:
                raise ValueError(
                    f"the collator returned no {name!r}, only {', '.join(map(repr, batch))}; "
                    "for rows without labels use TransformerCollator(…, label_names=None)"
                )
        if isinstance(self.label_names, str):
            return batch, batch[self.label_names]
        # Poutyne reads the batch size from the entry `batch_size`.
        return batch, {**{name: batch[name] for name in names}, "batch_size": len(batch[names[0]])}


class ModelWrapper(nn.Module):
    """Calls a transformers model, which takes keyword arguments, with one dictionary.

    The parameters have the same names as in the model, without a prefix: a checkpoint of Poutyne fits the bare model.

    Args:
        model: a transformers model, or any module that returns a mapping.
        output: what is returned: the whole output of the model (None), one of its entries (a key), or the result of a
            function of it.
        autocast: compute the forward pass under autocast to this dtype (usually `torch.bfloat16`), and return float32.
            Poutyne itself does not offer autocast.
        ignore: keys of the dictionary that are not passed to the model. With `"labels"` it computes no loss itself.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | Callable[[Any], Any] | None = None,
        autocast: torch.dtype | None = None,
        ignore: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.autocast = autocast
        self.ignore = frozenset(ignore)

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's output for a batch."""
        inputs = {key: value for key, value in inputs.items() if key not in self.ignore}
        if self.autocast is None:
            output = self.model(**inputs)
        else:
            device = next(self.model.parameters()).device
            with torch.autocast(device.type, self.autocast):
                output = self.model(**inputs)
            output = convert_to_fp32(output)
        if self.output is None:
            return output
        return self.output(output) if callable(self.output) else output[self.output]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """See `PreTrainedModel.save_pretrained`."""
        return self.model.save_pretrained(*args, **kwargs)  # type: ignore[operator]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.model.load_state_dict(*args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's own."""
        return self.model.named_parameters(*args, **kwargs)


def model_loss(outputs: Mapping[str, Any], _labels: Any = None) -> Tensor:
    """Loss function for a model that computes its own loss.

    Raises:
        ValueError: if it did not, because its inputs had no labels.
    """
    loss = outputs.get("loss")
    if loss is None:
        raise ValueError("the model returned no loss: it computes one if its inputs have labels")
    return loss


class TransformerModel(poutyne.Model):
    """`poutyne.Model` for a transformers model: wraps it, and joins predictions of batches that differ in width.

    Poutyne cannot join the predictions of `(16, 5)` and `(16, 7)`. Here the narrower batches are padded on the right:
    floating point values with nan, which `argsort` puts last, Booleans with False and integers with -100.

    Args:
        model: a transformers model, or a `ModelWrapper` around one.
        optimizer: an optimizer of the model's parameters, or its name in torch.
        loss_function: any loss function of Poutyne; by default the model's own loss.
        **options: further arguments of `poutyne.Model`.

    Losses and metrics that are given by name ("cross_entropy", "accuracy") are applied to the logits. Functions and
    objects get what the network returns: the whole output, or with `ModelWrapper(model, output="logits")` the logits.
    """

    def __init__(
        self, model: nn.Module, optimizer: Any = None, loss_function: Any = model_loss, **options: Any
    ) -> None:
        network = model if isinstance(model, ModelWrapper) else ModelWrapper(model)
        if network.output is None:
            loss_function = _of_logits(loss_function)
            for kind in {"batch_metrics", "epoch_metrics"} & options.keys():
                metrics = options[kind] or []
                options[kind] = list(map(_of_logits, metrics if isinstance(metrics, (list, tuple)) else [metrics]))
        super().__init__(network, optimizer, loss_function, **options)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """See `PreTrainedModel.save_pretrained`."""
        return self.network.save_pretrained(*args, **kwargs)

    def predict_generator(self, generator: Any, *, concatenate_returns: bool = True, **options: Any) -> Any:
        """As `poutyne.Model.predict_generator`."""
        outcome = super().predict_generator(generator, concatenate_returns=False, **options)
        if not concatenate_returns:
            return outcome
        return tuple(map(_joined, outcome)) if options.get("return_ground_truth") else _joined(outcome)

    def evaluate_generator(self, generator: Any, *, concatenate_returns: bool = True, **options: Any) -> Any:
        """As `poutyne.Model.evaluate_generator`."""
        outcome = super().evaluate_generator(generator, concatenate_returns=False, **options)
        count = bool(options.get("return_pred")) + bool(options.get("return_ground_truth"))
        if not concatenate_returns or not count:
            return outcome
        return (*outcome[:-count], *map(_joined, outcome[-count:]))


class MetricWrapper(poutyne.IndexedArgumentMetric):
    """Any metric or loss of Poutyne on one entry of the model's output, such as `MetricWrapper("accuracy")`.

    Args:
        metric: a metric as Poutyne takes it: a name, a function or a `Metric`.
        pred_key: entry of the output.
        label_key: entry of the labels, where there are several.
    """

    def __init__(self, metric: Any, *, pred_key: str = "logits", label_key: str | None = None) -> None:
        super().__init__(metric, pred_index=pred_key, true_index=label_key)


def _of_logits(metric: Any) -> Any:
    return MetricWrapper(metric) if isinstance(metric, str) else metric


class EpochMetric(poutyne.Metric):
    """A function of all outputs and labels of an epoch, as an epoch metric.

    Args:
        function: called with the outputs, `{key: (examples, …)}`, and the labels, `(examples, …)`. Returns one number,
            or a mapping from names to numbers. Batches of different width are padded on the right, outputs with 0
            (False) and labels with `label_padding`.
        names: name of the number in Poutyne's logs, or the keys of the mapping to log.
        output_keys: which outputs to keep. The fewer, the less memory.
        label_padding: marks a position without a label.
    """

    def __init__(
        self,
        function: EpochFunction,
        names: str | Sequence[str],
        *,
        output_keys: Sequence[str] = ("logits",),
        label_padding: int = -100,
    ) -> None:
        super().__init__()
        self.function = function
        self.output_keys = tuple(output_keys)
        self.label_padding = label_padding
        self.__name__ = names if isinstance(names, str) else list(names)  # where Poutyne looks for them
        self.reset()

    def update(self, y_pred: Mapping[str, Tensor], y_true: Tensor) -> None:
        """Keeps one batch, on the CPU."""
        for key in self.output_keys:
            self._outputs[key].append(_to_numpy(y_pred[key]))
        self._labels.append(_to_numpy(y_true))

    def compute(self) -> float | Mapping[str, float]:
        """The function's value for all batches since the last reset."""
        outputs = {key: _concatenated(batches, 0) for key, batches in self._outputs.items()}
        return self.function(outputs, _concatenated(self._labels, self.label_padding))

    def reset(self) -> None:
        """Discards all batches."""
        self._outputs: dict[str, list[np.ndarray]] = {key: [] for key in self.output_keys}
        self._labels: list[np.ndarray] = []


def _to_numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16


def _joined(batches: list[Any]) -> Any:
    """Concatenates the predictions of all batches, also in dictionaries, lists and tuples."""
    first = batches[0]
    if isinstance(first, Mapping):
        return {key: _joined([batch[key] for batch in batches]) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_joined(list(parts)) for parts in zip(*batches, strict=True))
    if isinstance(first, Tensor):
        return torch.from_numpy(_joined([_to_numpy(batch) for batch in batches]))
    if not isinstance(first, np.ndarray) or first.ndim == 0:
        return batches
    return _concatenated(batches, {"f": np.nan, "i": -100}.get(first.dtype.kind, 0))


def _concatenated(batches: list[np.ndarray], padding: float) -> np.ndarray:
    """Concatenates batches `(examples, …)`, padded on the right to the widest."""
    widest = np.max([batch.shape[1:] for batch in batches], axis=0)
    padded = [
        np.pad(batch, [(0, 0), *((0, int(size)) for size in widest - batch.shape[1:])], constant_values=padding)
        for batch in batches
    ]
    return np.concatenate(padded)
