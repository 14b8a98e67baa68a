"""Names and texts that a page, a script, a shell, a spreadsheet or a terminal could take for something else."""

from __future__ import annotations

HOSTILE_NAMES = (
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "]]><img src=x onerror='window.hacked = 1'>",
    "\"'><svg onload=window.hacked=1>",
    "{{ 7 * 7 }}{% raw %}${window.hacked = 1}`",
    "\\u003c/script>\\",
    "&lt;b&gt; &amp; &#x3c;",
    "a\u2028b\u2029c",
    "\u202egpj.\u202dwav",
    "__proto__",
    "=HYPERLINK(1)",
    "javascript:window.hacked=1",
    "50% #1? ä\u0301 日本語 🎙",
)
