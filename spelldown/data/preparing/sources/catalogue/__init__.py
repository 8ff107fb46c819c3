"""Published corpora by name: which there are, how they are fetched, and how each is read."""

from spelldown.data.preparing.sources.catalogue.corpus import CatalogueSettings, read
from spelldown.data.preparing.sources.catalogue.download import download
from spelldown.data.preparing.sources.catalogue.listing import CorpusEntry, catalogue, entry_of

__all__ = ["CatalogueSettings", "CorpusEntry", "catalogue", "download", "entry_of", "read"]
