"""fish-speech's own generation, one text at a time: used by `UpstreamEngine`, and to compare other engines with.

It is apart from `fish.py` because importing upstream's module takes as long as importing torch: it imports torch's
compiler to set its flags, and does not use it here.
"""

from __future__ import annotations

import warnings

from cloner.engine.checkpoint.fish_imports import importing_fish_speech

with importing_fish_speech():
    from fish_speech.models.text2semantic import inference

inference.tqdm = iter  # no progress bar for every segment
warnings.filterwarnings("ignore", module=r"fish_speech\.")  # it copies tensors in a way that torch advises against

generate_long = inference.generate_long
decode_one_token = inference.decode_one_token_ar
logits_to_probs = inference.logits_to_probs
