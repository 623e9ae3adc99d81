"""Runtimes, one file per backend. Eager PyTorch is just another one."""
