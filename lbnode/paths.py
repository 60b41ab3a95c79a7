"""Where lbnode reads and writes on a node. One value, passed down, so that tests and labs can move it."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """`etc` belongs to the operator and survives a reboot; `run` lives and dies with the kernel's state.

    `config` is the cluster file when it is not `cluster.yaml` in `etc`; `bpf` is a folder of a BPF file system.
    """

    etc: Path = field(default_factory=lambda: Path("/etc/lb"))
    run: Path = field(default_factory=lambda: Path("/run/lbnode"))
    config: Path | None = None
    bpf: Path = field(default_factory=lambda: Path("/sys/fs/bpf/lbnode"))

    @property
    def cluster_file(self) -> Path:
        return self.config or self.etc / "cluster.yaml"

    @property
    def templates(self) -> Path:
        """An operator's own templates: a file here wins over the shipped one of the same name."""
        return self.etc / "templates"

    @property
    def disable(self) -> Path:
        return self.etc / "disable"

    @property
    def agent_check(self) -> Path:
        return self.etc / "agent-check"

    @property
    def boot_agent_check(self) -> Path:
        """Like `agent_check`, for this boot alone: what `drain --until-reboot` and a machine that shuts down write."""
        return self.run / "maintenance" / "agent-check"

    @property
    def dns_addresses(self) -> Path:
        """What an operator takes out of the answers of a DNS server; gdnsd follows it."""
        return self.etc / "dns-addresses"

    @property
    def haproxy_config(self) -> Path:
        return self.etc / "generated" / "haproxy.cfg"

    @property
    def haproxy_tables(self) -> Path:
        """The maps and lists that haproxy.cfg speaks of."""
        return self.etc / "generated" / "haproxy"

    @property
    def exabgp_config(self) -> Path:
        return self.etc / "generated" / "exabgp.conf"

    @property
    def announceable(self) -> Path:
        """The networks that may be announced: from the cluster file, for the relay's last look."""
        return self.etc / "generated" / "announceable"

    @property
    def generations(self) -> Path:
        """The Maglev tables that are and were in use (`lbnode.chance.generations`)."""
        return self.etc / "generated" / "generations.json"

    @property
    def haproxy_socket(self) -> Path:
        """HAProxy's runtime API (the worker's socket)."""
        return self.run / "haproxy" / "admin.sock"

    @property
    def haproxy_master_socket(self) -> Path:
        return self.run / "haproxy" / "master.sock"

    @property
    def haproxy_state_file(self) -> Path:
        """HAProxy's server-state-file, written before a reload and read by the new worker."""
        return self.run / "haproxy" / "server-state"

    @property
    def haproxy_leaving(self) -> Path:
        """The servers that were taken out of HAProxy and still have connections."""
        return self.run / "haproxy" / "leaving.json"

    @property
    def haproxy_loaded(self) -> Path:
        """The configuration that HAProxy was last seen to run, and the files that it speaks of."""
        return self.run / "haproxy" / "loaded.json"

    @property
    def haproxy_parts(self) -> Path:
        """The digests of its sections."""
        return self.run / "haproxy" / "parts.json"

    @property
    def bgp_wanted(self) -> Path:
        """The announcements this node should make: written by apply and the agent, followed by the relay."""
        return self.run / "bgp" / "wanted.json"

    @property
    def bgp_told(self) -> Path:
        """What the relay has told ExaBGP, and the peers' states: written by the relay."""
        return self.run / "bgp" / "told.json"

    @property
    def bgp_heartbeat(self) -> Path:
        """The agent's sign of life, for the relay (`lbnode.bgp.heartbeat.FILE`)."""
        return self.run / "bgp" / "agent.json"

    @property
    def flaps(self) -> Path:
        """When VIPs were withdrawn because of their real servers."""
        return self.run / "flaps.json"

    @property
    def ledger(self) -> Path:
        """The IPVS services that this boot's runs have made, so that a removed one is known to be ours."""
        return self.run / "ipvs.json"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"
