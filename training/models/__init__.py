"""Models on disk and in memory: building one from an encoder, loading a trained one, and the folder it is saved in."""
