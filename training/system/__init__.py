"""The system that a command runs on: console, processes, devices, Ctrl-C, output paths and network errors."""
