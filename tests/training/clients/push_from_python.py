"""Trains with Lightning and with Poutyne's experiment, without a recipe, and pushes from Python.

Run as a script with the folder of an encoder, a file of stories, two ids, and stories to order as JSON. Prints one JSON
object: for each id under `best` the tau of the state that was pushed, under `answers` how it orders the stories.
"""

from __future__ import annotations

import json
import sys

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from dataset_builder import load_stories
from modeling_sentence_ordering import SentenceOrderingPipeline, StoryTokenizer
from training.data.stories import TokenizedStories, evaluation_loader, training_loader
from training.frameworks.lightning.checkpoints import model_of_checkpoint
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule
from training.frameworks.optimization import build_optimizer
from training.frameworks.poutyne.adapters import TransformerCollator
from training.frameworks.poutyne.experiment import build_experiment
from training.models.encoders import build_model
from training.publishing.lightning import PushToHubCallback
from training.publishing.poutyne import push_experiment
from training.recipe.recipe import Recipe

encoder, data, by_lightning, by_poutyne, stories_as_json = sys.argv[1:]

kept = ModelCheckpoint("kept", monitor="val_kendalls_tau", mode="max")
push = PushToHubCallback(by_lightning, private=True, commit_message="From Lightning")
trainer = Trainer(
    max_epochs=2, accelerator="cpu", callbacks=[kept, push], logger=False, enable_progress_bar=False
)  # fmt: skip
module = SentenceOrderingModule.build(encoder, learning_rate=5e-3)
trainer.fit(module, datamodule=StoryDataModule([data]))
assert push.pushed is not None

recipe = Recipe(encoder=encoder, data=[data], output_dir="out", learning_rate=5e-3, bf16=False).resolved()
stories = load_stories([data])
model, tokenizer = build_model(recipe, [])
encoding = StoryTokenizer(tokenizer, model.config)
training = training_loader(TokenizedStories(stories["train"], encoding, 42), recipe)
validation = evaluation_loader(TokenizedStories(stories["validation"], encoding, 42), 8)
for loader in (training, validation):
    loader.collate_fn = TransformerCollator(loader.collate_fn)
experiment = build_experiment("experiment", model, build_optimizer(model, recipe))
history = experiment.train(training, validation, epochs=2, verbose=False)
pushed = push_experiment(experiment, tokenizer, by_poutyne)

assert kept.best_model_score is not None
best = {
    push.pushed.repo_id: float(kept.best_model_score),
    pushed.repo_id: max(epoch["val_kendalls_tau"] for epoch in history),
}
models = {
    push.pushed.repo_id: model_of_checkpoint(kept.best_model_path),
    pushed.repo_id: (experiment.model.network.model.eval(), tokenizer),
}
answers = {}
for repo_id, (trained, its_tokenizer) in models.items():
    order = SentenceOrderingPipeline(model=trained, tokenizer=its_tokenizer)
    answers[repo_id] = [order(story) for story in json.loads(stories_as_json)]
print(json.dumps({"best": best, "answers": answers}))
