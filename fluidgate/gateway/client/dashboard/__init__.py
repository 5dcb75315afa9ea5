"""The page on which a browser shows the gateway, and the stream of events that it reads."""

from fluidgate.gateway.client.dashboard.feed import Feed
from fluidgate.gateway.client.dashboard.live_stream import LiveStream
from fluidgate.gateway.client.dashboard.page import HEADERS, PAGE
from fluidgate.gateway.client.dashboard.readings import Readings

__all__ = ["HEADERS", "PAGE", "Feed", "LiveStream", "Readings"]
