"""fish-speech's own generation, one text at a time: what `UpstreamEngine` runs, and what ours is compared with.

A module of its own because importing upstream's takes as long as importing torch: it wants torch's compiler, whose
flags it sets, and never uses it here.
"""

from __future__ import annotations

import warnings

from cloner.engine.fish import importing

with importing():
    from fish_speech.models.text2semantic import inference

inference.tqdm = iter  # no progress bar for every segment
warnings.filterwarnings("ignore", module=r"fish_speech\.")  # it copies tensors in a way that torch advises against

generate_long = inference.generate_long
decode_one_token = inference.decode_one_token_ar
logits_to_probs = inference.logits_to_probs
