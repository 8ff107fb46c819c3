"""Language models of LSTM cells: one of its own, and the one that every speller has within."""
