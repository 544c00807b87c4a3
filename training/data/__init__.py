"""From stories to batches: reading what a recipe names, tokenizing, shuffling, batching and streaming."""
