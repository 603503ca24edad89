"""Ops of a denoising step: plain-torch specifications, and later their faster machines."""
