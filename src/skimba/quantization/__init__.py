"""Models whose products are in 8-bit integers."""

from skimba.quantization.int8 import is_quantized, quantize

__all__ = ["is_quantized", "quantize"]
