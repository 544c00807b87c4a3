"""Ordering stories with a trained model: from files to files, in shards, and with ONNX Runtime."""
