"""Spoken corpora made on the spot: for a fresh machine to learn from, and beside real speech.

texts.py        what is said: a file of sentences, less those that must stay unheard
planning.py     who says what, how: utterances drawn from settings and a seed
engines/        what can speak
sound.py        from what an engine gives to a recording
corpus.py       recordings and manifests
folder.py       where they lie, and whose folder that is
synthetic.py    all of these in a row: `spelldown prepare synthetic`

demo_corpus.py  the demo's corpus, with
sentences.py    a closed little language with far more sentences than words
"""

from spelldown.data.synthesis.demo_corpus import DemoCorpusSettings, make_demo_corpus

__all__ = ["DemoCorpusSettings", "make_demo_corpus"]
