"""Names of the files in a checkpoint folder, in fish-speech's layout."""

from __future__ import annotations

CONFIG = "config.json"
MODEL_WEIGHTS = "model.pth"
TOKENIZER = "tokenizer.tiktoken"
SPECIAL_TOKENS = "special_tokens.json"
CODEC_WEIGHTS = "codec.pth"
FILES = (CONFIG, MODEL_WEIGHTS, TOKENIZER, SPECIAL_TOKENS, CODEC_WEIGHTS)
"""The files that fish-speech publishes and loads."""

CODEC_SIZES = "codec.json"
"""An extra file if the codec is not upstream's: the sizes in which it differs from ``modded_dac_vq.yaml``."""

RANDOM_WEIGHTS = "random_weights.txt"
"""An extra file of a checkpoint that was never trained: nothing is to be heard in what it makes."""
