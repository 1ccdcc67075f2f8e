"""The flags of every command, one module each; none of them imports torch, so `--help` is quick."""
