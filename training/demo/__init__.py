"""The demo page, and the Space that contains it."""
