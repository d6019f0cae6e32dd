"""A real Kubernetes on this machine: etcd, API server, kubelet, containerd and the rest as plain detached processes.

`python3 -m tools.cluster up|down|status`. One cluster per machine; every clone of the repository uses it.

Three rules keep it honest:
- The process table is the truth. Every process carries its cluster folder and a hash of its configuration in its
  environment; there are no pid files that could lie after a reboot or a kill.
- `up` starts whatever is missing or differs from what this checkout wants, and takes harsher means only when that
  fails: first start what is missing, then restart everything, then begin with empty data.
- `down` leaves nothing behind but the caches of programs and images.
"""
