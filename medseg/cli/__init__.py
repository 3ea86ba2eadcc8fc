"""The command line: a command is a few lines that call the floors below."""
