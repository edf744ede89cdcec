"""The kernels, in Triton's language: its compiler gives them their types. Importing one imports Triton."""
