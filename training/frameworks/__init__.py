"""Training a model with one of three frameworks.

`protocol` says what a framework offers, `run` what it is given; `optimization`, `loss_watch` and `training_log` are
shared by all three.
"""
