"""PyTorch Lightning: `framework` trains by a recipe.

`module`, `data` and `checkpoints` also work with a `Trainer` of your own, and `command_line` is a `LightningCLI`.
"""
