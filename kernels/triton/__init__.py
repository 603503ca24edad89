"""The ops of `kernels.reference` in Triton, for NVIDIA and AMD GPUs. Importing this package needs no Triton, importing
its modules does: `kernels.dispatch` does so only where it is installed."""
