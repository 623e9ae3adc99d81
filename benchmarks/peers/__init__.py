"""Others' tools beside ours, each in its own environment with its own default recipe: `make peers`."""
