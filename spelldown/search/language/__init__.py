"""Language models: what is likely to be written, whatever was said."""
