"""The storm: real workers and their jobs are killed again and again, and nothing may be lost.

`make storm` runs it (see `__main__`), `tests/test_storm.py` the same at a smaller size. Workers are
the product's own code in processes of their own (`hand`, forked by `zygote`), on real databases and
a real Redis (`services`); most jobs are stand-ins that cost no training (`standin`), some really
train (`real`). What came of it is judged by facts that don't trust the ledger alone (`verdict`),
and the judge is judged by guards that are switched off on purpose (`guards`, `controls`).
"""
