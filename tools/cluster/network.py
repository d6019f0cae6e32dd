"""The node's address; and the way back from all bridges, firewall rules and kernel settings that a cluster leaves."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tools.cluster.settings import DNS_IP, NODE_BRIDGE, NODE_IP, POD_BRIDGE, SERVICE_CIDR, Layout
from tools.console import output_of

OUR_CHAIN = re.compile(r"^(KUBE|CNI)-")
OUR_RULE = re.compile(r"(?:-j|-g) (?:KUBE|CNI)-|--comment \"?(?:kubernetes|name: \"?finetune)")

NEEDED_SETTINGS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
"""Packets must be routed between pods and the machine, and a Service's answer between two pods must pass iptables."""

CHANGED_SETTINGS = (
    *NEEDED_SETTINGS,
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""What the cluster, its kubelet and its kube-proxy write; remembered at the first start and put back at the end."""


def setting(name: str) -> Path:
    """A kernel setting as a file."""
    return Path("/proc/sys") / name


def remember_settings(layout: Layout) -> None:
    """Note the kernel settings of before, once."""
    file = layout.state / "kernel-settings.json"
    if not file.exists():
        values = {name: setting(name).read_text().strip() for name in CHANGED_SETTINGS if setting(name).exists()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values, indent=2))


def restore_settings(layout: Layout) -> None:
    """Put the kernel settings back that were noted."""
    file = layout.state / "kernel-settings.json"
    if file.exists():
        for name, value in json.loads(file.read_text()).items():
            if setting(name).read_text().strip() != value:
                setting(name).write_text(value)


def link_exists(name: str) -> bool:
    """Whether there is a network interface of this name."""
    return Path("/sys/class/net", name).exists()


def up(layout: Layout) -> None:
    """The node's bridge with the node's and the DNS server's address; nothing changes when all is there."""
    remember_settings(layout)
    for name, value in NEEDED_SETTINGS.items():
        if setting(name).exists():
            setting(name).write_text(value)
    if not link_exists(NODE_BRIDGE):
        output_of(["ip", "link", "add", NODE_BRIDGE, "type", "bridge"])
    for address in (NODE_IP, DNS_IP):
        output_of(["ip", "address", "replace", f"{address}/32", "dev", NODE_BRIDGE])
    output_of(["ip", "link", "set", NODE_BRIDGE, "up"])
    # So that this machine's own processes reach Services also where it has no default route.
    output_of(["ip", "route", "replace", SERVICE_CIDR, "dev", NODE_BRIDGE, "src", NODE_IP])


def down() -> None:
    """Remove both bridges and every firewall chain of Kubernetes and its network plugins."""
    for name in (POD_BRIDGE, NODE_BRIDGE):
        if link_exists(name):
            output_of(["ip", "link", "delete", name])
    for family in ("iptables", "ip6tables"):
        saved = subprocess.run([f"{family}-save"], capture_output=True, text=True, check=False).stdout
        if script := removal_script(saved):
            output_of([f"{family}-restore", "--noflush"], stdin=script)


def removal_script(saved: str) -> str:
    """What takes our chains, and the rules that lead to them, out of tables as `iptables-save` prints them.

    Returns input for `iptables-restore --noflush`; empty when there is nothing of ours.
    """
    script: list[str] = []
    for table in re.split(r"^(?=\*)", saved, flags=re.MULTILINE):
        lines = table.splitlines()
        if not lines or not lines[0].startswith("*"):
            continue
        chains = [line[1:].split()[0] for line in lines if line.startswith(":") and OUR_CHAIN.match(line[1:])]
        rules = [line for line in lines if line.startswith("-A ") and not OUR_CHAIN.match(line[3:])]
        deletions = [f"-D {rule[3:]}" for rule in rules if OUR_RULE.search(rule)]
        if not chains and not deletions:
            continue
        # Declaring a chain empties it, so that no rule of ours refers to another chain of ours when it is deleted.
        script += [lines[0], *(f":{chain} - [0:0]" for chain in chains), *deletions]
        script += [*(f"-X {chain}" for chain in chains), "COMMIT"]
    return "\n".join(script) + "\n" if script else ""
