"""
What every measurement uses, ``kvd bench`` and the developers' ``bench/`` alike: the
processes that are measured, the machine, figures and their targets, tables, drawings,
JSON and report pages.
"""
