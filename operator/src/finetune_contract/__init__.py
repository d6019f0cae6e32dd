"""What both sides of the pod boundary share.

Belongs here: the typed documents that cross between the operator and the pods (plans in, results and progress out), the
one enumeration of failure reasons, the manifest of a stored directory, and the names of files, mounts and limits.
Must not be here: I/O, Kubernetes, torch, anything but pydantic and the standard library. Everybody may import this
package; it imports nobody.
"""
