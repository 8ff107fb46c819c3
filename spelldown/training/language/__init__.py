"""Training of models that read and hear nothing, by the trainer that trains recognizers."""
