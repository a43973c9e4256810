"""What the probes report. None, or nothing, stands for what could not be found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Version = tuple[int, int]

OBJECT_STORE_GIB = 0.25  # the default of cluster.object_store_mib


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    system: str = "Linux"
    architecture: str = "x86_64"
    name: str = ""  # of the distribution
    python: tuple[int, int, int] = (3, 11, 0)
    executable: str = "python"
    has_python_headers: bool = True
    num_cores: int = 1  # that this process may use
    core_quota: float | None = None  # of the container, in cores; None = no limit
    memory_gib: float | None = None  # the container's limit where it has one
    memory_free_gib: float | None = None  # what processes that start now can get
    shared_memory_gib: float | None = None  # /dev/shm; None where there is none
    shared_memory_free_gib: float | None = None
    open_files: int | None = None  # the hard limit, up to which Ray and vLLM raise it; None = no limit
    processes: int | None = None  # and threads, the lower one of the user's and the container's limit
    compiler: str | None = None  # the C compiler on the PATH
    compiler_error: str | None = None  # what it says to a program of one line
    libnuma_error: str | None = None  # None where libnuma.so.1 loads
    now_s: float = 0.0  # Unix time
    installed_s: float | None = None  # when rlstack was installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A distribution, from its own metadata."""

    name: str  # normalised: lower case, dashes
    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch/version.py says, which pip's metadata need not agree with."""

    version: str
    cuda: str | None  # None for a CPU build


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    installed: Mapping[str, Installed] = field(default_factory=dict)  # by name
    requires_python: str | None = None  # of rlstack
    torch: Torch | None = None
    shadows: tuple[tuple[str, str], ...] = ()  # module, path of what is imported in its place
    has_packaging: bool = True  # without it versions cannot be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    name: str  # of rlstack.doctor.catalogue's import checks
    statement: str
    seconds: float
    error: str | None = None  # the last line of what it printed
    signal: str | None = None  # that it died of
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_gib: float
    free_gib: float
    processes: tuple[int, ...] = ()  # that compute on it
    uncorrected_errors: int = 0  # of its memory, since it was last reset


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaUse:
    """What torch makes of the GPUs, in a process of its own."""

    num_gpus: int = 0
    nccl: str | None = None
    apart: tuple[tuple[int, int], ...] = ()  # pairs of GPUs that cannot reach each other's memory
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    gpus: tuple[Gpu, ...] = ()  # all that NVML knows, whatever CUDA_VISIBLE_DEVICES says
    driver: str | None = None
    driver_cuda: Version | None = None  # the newest that the driver supports
    nvml_error: str | None = None
    num_devices: int = 0  # NVIDIA GPUs on the PCI bus, with or without a driver
    use: CudaUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Variables; only values that cannot be secrets are kept."""

    visible_gpus: str | None = None  # CUDA_VISIBLE_DEVICES
    threads: str | None = None  # OMP_NUM_THREADS
    has_ray_address: bool = False
    proxies: tuple[str, ...] = ()  # the names of those that are set
    no_proxy: tuple[str, ...] = ()
    vllm_plugins: tuple[str, ...] | None = None
    vllm: tuple[str, ...] = ()  # names of other VLLM_* variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    loopback_error: str | None = None
    busy_ports: tuple[int, ...] = ()  # of cluster.port_range


@dataclass(frozen=True, slots=True, kw_only=True)
class RayProcess:
    pid: int
    own: bool  # this user's
    driver: int | None  # the process that it ends with; None where `ray start` began it


@dataclass(frozen=True, slots=True, kw_only=True)
class RayStart:
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    folder: str = "/tmp"  # in which each run makes one for its Ray
    leftovers: tuple[str, ...] = ()  # folders, and files in /dev/shm, of this user's runs that were killed
    mode_problem: str | None = None  # what is wrong with RAY_AUTH_MODE
    token_problem: str | None = None  # and with the token that a cluster would be joined with
    registered: str | None = None  # address of the cluster that `ray start` has left behind
    raylets: tuple[RayProcess, ...] = ()
    started: RayStart | None = None  # with --start


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    path: str
    error: str | None = None  # of writing to it, or to what it would be made in
    free_gib: float | None = None
    used_share: float = 0.0  # of its file system
    is_out_of_files: bool = False  # no inodes are left


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    runs: Folder = field(default_factory=lambda: Folder(path="runs"))
    temporary: Folder = field(default_factory=lambda: Folder(path="/tmp"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of CONFIG, as far as it could be read."""

    path: str
    refused: tuple[str, ...] = ()  # what `rlstack train` says of the settings
    model_refused: tuple[str, ...] = ()  # and of policy.model
    error: str | None = None  # why it could not be asked
    run_folder: str | None = None
    joins_cluster: bool = False
    ports: tuple[int, int] | None = None
    object_store_gib: float = OBJECT_STORE_GIB
    checkpoints_gib: float | None = None  # those that are kept, one that is written, and the model


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """A node that Ray counts as alive."""

    address: str
    num_cores: int
    num_gpus: int
    free_cores: int
    free_gpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster at cluster.address, as it was found when this machine joined it."""

    error: str | None = None  # why it could not be looked at
    join_problem: str | None = None  # what `rlstack train` says of joining it
    nodes: tuple[ClusterNode, ...] = ()
    place_problem: str | None = None  # and of the room on its nodes
    places: tuple[tuple[str, tuple[str, ...]], ...] = ()  # address of a node, roles that would be there
    is_free: bool = True  # whether all that the run needs is
    node_problems: tuple[str, ...] = ()  # what it says of the nodes' packages, models and folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    machine: Machine = field(default_factory=Machine)
    packages: Packages = field(default_factory=Packages)
    imports: tuple[Imported, ...] = ()
    gpus: Gpus = field(default_factory=Gpus)
    environment: Environment = field(default_factory=Environment)
    network: Network = field(default_factory=Network)
    ray: Ray = field(default_factory=Ray)
    disk: Disk = field(default_factory=Disk)
    settings: Settings | None = None  # None without CONFIG
    cluster: Cluster | None = None  # None unless CONFIG joins one
    failures: tuple[str, ...] = ()  # probes that failed, with the reason

    @property
    def joins_cluster(self) -> bool:
        """Whether the run's processes go to a Ray cluster that may have other machines."""
        return self.settings is not None and self.settings.joins_cluster

    @property
    def has_gpus(self) -> bool:
        return bool(self.gpus.gpus)

    @property
    def extra(self) -> str:
        """The extra of rlstack's that this machine needs; who joins a cluster has what its nodes have."""
        joins_gpus = self.joins_cluster and "vllm" in self.packages.installed
        return "gpu" if self.has_gpus or joins_gpus else "cpu"
