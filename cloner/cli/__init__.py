"""The command line, `cloner`: one module for each group of commands."""
