"""The command `sentence-ordering`: one module per command, and `command_line`, which selects and runs them."""
