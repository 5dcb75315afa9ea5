"""Where engines are named: each source gives the base URLs of those that are there now."""

from fluidgate.gateway.cluster.sources.dns import DnsName
from fluidgate.gateway.cluster.sources.kubernetes import KubernetesService
from fluidgate.gateway.cluster.sources.source import Listed, Source, SourceError
from fluidgate.gateway.cluster.sources.watched_file import WatchedFile

__all__ = ["DnsName", "KubernetesService", "Listed", "Source", "SourceError", "WatchedFile"]
