"""The commands of `tdmr`, one file for each noun. What they need is loaded when they run."""
