"""Public transfer benchmarks: fetched, indexed and measured by `tdmr bench`. Loads no torch."""
