"""Training with one of three frameworks.

`protocol` is their interface and `run` what they train; `optimization`, `loss_watch`, `checkpoints` and `training_log`
are shared.
"""
