"""Hostile uploads made by hand, each with the code that it must be refused with; and good ones.

hand.archives()     hostile archives: zip, tar, tar.gz and Parquet
hand.images()       hostile images, each of them also inside an otherwise good archive
harmless.uploads()  odd, and rightly taken
good.archives()     good ones by a seeded recipe
generated           hostile ones by Hypothesis
"""
