"""A small spoken corpus made on the spot, so that a fresh machine has something to learn from.

sentences.py  what is said: a closed little language with far more sentences than words
voices.py     who says it, and who is kept for testing
espeak.py     eSpeak NG in a process of its own
corpus.py     recordings and manifests
"""

from spelldown.data.synthesis.corpus import SynthesisSettings, make_demo_corpus

__all__ = ["SynthesisSettings", "make_demo_corpus"]
