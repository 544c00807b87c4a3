"""What stands between Poutyne and a transformers model of any task.

Poutyne wants batches `(x, y)`, a network that is called with `x`, and losses and metrics that are called with what
the network returned and `y`. Transformers models take a dictionary, labels included, and return their own loss:

    loader = DataLoader(rows, batch_size=16, collate_fn=TransformerCollator(DataCollatorWithPadding(tokenizer)))
    accuracy = MetricWrapper(lambda outputs, labels: np.mean(outputs["logits"].argmax(-1) == labels), "accuracy")
    network = ModelWrapper(AutoModelForSequenceClassification.from_pretrained(name))
    model = poutyne.Model(network, "adamw", model_loss, epoch_metrics=[accuracy])
    model.fit_generator(loader, validation_loader, epochs=3)
    network.save_pretrained("a-folder-for-the-hub")

The idea and the names are those of the library poutyne-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import convert_to_fp32
from poutyne import Metric
from torch import Tensor, nn

Collate = Callable[[Any], Mapping[str, Any]]
MetricFunction = Callable[[dict[str, np.ndarray], np.ndarray], float | Mapping[str, float]]


class TransformerCollator:
    """Makes `(x, y)` out of what a collator for transformers returns.

    `x` is the whole batch, labels included, since the model needs them for its loss; a plain `dict`, the only mapping
    that Poutyne moves to the device. `y` is the labels once more.

    Args:
        collate: any collator that returns a mapping: ours, or one of transformers' data collators.
        label_name: key of the labels.
    """

    def __init__(self, collate: Collate, *, label_name: str = "labels") -> None:
        self.collate = collate
        self.label_name = label_name

    def __call__(self, examples: Any) -> tuple[dict[str, Any], Any]:
        """The batch of some examples, and their labels.

        Raises:
            ValueError: if the batch has no labels.
        """
        batch = dict(self.collate(examples))
        if self.label_name not in batch:
            raise ValueError(f"the collator returned no {self.label_name!r}, but {', '.join(map(repr, batch))}")
        return batch, batch[self.label_name]


class ModelWrapper(nn.Module):
    """A network that is called with one dictionary, around a model that is called with keyword arguments.

    Its parameters are named as the model's own, without a prefix, so that a checkpoint of Poutyne's fits the bare
    model and a gradient tracker shows the names that the model's reader knows.

    Args:
        model: a transformers model, or anything that returns a mapping with `loss`.
        autocast: compute the forward pass in this dtype (usually `torch.bfloat16`) wherever torch deems it safe, and
            return float32, as accelerate does; None for no autocast. Poutyne itself has none.
        ignore: keys of the dictionary that the model is not to see.
    """

    def __init__(self, model: nn.Module, *, autocast: torch.dtype | None = None, ignore: Sequence[str] = ()) -> None:
        super().__init__()
        self.model = model
        self.autocast = autocast
        self.ignore = frozenset(ignore)

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """The model's output for a batch."""
        inputs = {key: value for key, value in inputs.items() if key not in self.ignore}
        if self.autocast is None:
            return self.model(**inputs)
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, self.autocast):
            output = self.model(**inputs)
        return convert_to_fp32(output)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Saves the model as it would save itself: a folder for the Hub."""
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


def model_loss(outputs: Mapping[str, Any], labels: Any = None) -> Tensor:
    """The loss function of a model that computes its own loss.

    Raises:
        ValueError: if it did not, because there were no labels among its inputs.
    """
    loss = outputs.get("loss")
    if loss is None:
        raise ValueError("the model returned no loss: it computes one if its inputs have labels")
    return loss


class MetricWrapper(Metric):
    """A metric over a whole epoch: keeps what the model returns, and calls a function with all of it in the end.

    Args:
        function: called with the outputs kept, `{key: (examples, …)}`, and the labels, `(examples, …)`. Returns one
            number, or a mapping with one for each name. Where batches are of unequal width, they are filled up with
            0 (False), labels with `label_padding`.
        names: what the number is called in Poutyne's logs, or those of the mapping that are wanted.
        output_keys: which outputs to keep. The fewer, the less memory.
        label_padding: what marks a label that is none.
    """

    def __init__(
        self,
        function: MetricFunction,
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
        """What the function says of all batches since the last reset."""
        outputs = {key: _joined(batches, 0) for key, batches in self._outputs.items()}
        return self.function(outputs, _joined(self._labels, self.label_padding))

    def reset(self) -> None:
        """Forgets all batches."""
        self._outputs: dict[str, list[np.ndarray]] = {key: [] for key in self.output_keys}
        self._labels: list[np.ndarray] = []


def _to_numpy(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16


def _joined(batches: list[np.ndarray], padding: int) -> np.ndarray:
    """Batches one after the other, `(examples, …)`, each filled up at its ends to the widest."""
    widest = np.max([batch.shape[1:] for batch in batches], axis=0)
    filled = [
        np.pad(batch, [(0, 0), *((0, int(size)) for size in widest - batch.shape[1:])], constant_values=padding)
        for batch in batches
    ]
    return np.concatenate(filled)
