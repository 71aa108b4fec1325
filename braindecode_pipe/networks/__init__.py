"""Torch modules: tensors in, tensors out. Import the modules by name; this file loads nothing."""
