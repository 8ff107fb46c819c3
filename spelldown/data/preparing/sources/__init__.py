"""Where speech is kept, one file a kind: each gives utterances one at a time and opens no audio."""
