"""Fused forms of what the engines do, each held by a test to the plain PyTorch form."""
