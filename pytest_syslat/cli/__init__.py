"""The command `syslat`: what can be done beside measuring, one module a command."""
