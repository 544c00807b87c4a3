"""The transformers `Trainer`: `framework` trains by a recipe."""
