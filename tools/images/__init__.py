"""The operator and trainer images: built from the product's own Dockerfiles, loaded into the local cluster.

`python3 -m tools.images` does both; a tag names the content of everything that went in, so unchanged inputs do nothing.
No registry takes part: layers go through one folder in OCI layout, and containerd gets only those that it lacks.
"""
