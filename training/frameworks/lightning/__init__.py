"""PyTorch Lightning: `framework` trains by a recipe.

`module`, `data` and `checkpoints` also work with your own `Trainer`; `command_line` is a `LightningCLI`.
"""
