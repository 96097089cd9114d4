"""Jobs: the ledger of everything that takes time."""
