"""`make demo`: three YAMLs to a served adapter, on whatever cluster the chart is installed on.

Belongs here: applying examples/demo, showing how far things are, asking the result. Must not be here: anything that the
operator should do, or a number that was not read from the cluster.
"""
