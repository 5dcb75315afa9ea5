"""The tables of a gateway file (TOML): their keys, defaults and bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fluidgate.engine_table import absent
from fluidgate.gateway.quota_table import NamedKeyTable, QuotaTable
from fluidgate.replanning.replanner import Replanning
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, SchemaKey, Table

EngineKind = Literal["vllm", "vllm-coupled", "llamacpp", "sglang", "openai"]
Binding = Literal["late", "early"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerTable(Table):
    """Where the gateway listens, and what it writes."""

    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on; others than loopback are seen")
    port: int = Field(8080, ge=0, le=65535, description="the port to listen on; 0 for a free one")
    log: str = Field(
        "-",
        min_length=1,
        description="the file of the request log, a JSON line a request; '-' for standard error, 'off' for none",
    )
    grace_seconds: float = Field(
        2.0, ge=0, description="the seconds after SIGTERM for which /ready says 503 and requests are still taken"
    )
    reuse_port: bool = Field(False, description="whether another gateway may listen on the same port, to take over")
    drain_seconds: float = Field(60.0, ge=0, description="the seconds that requests in flight get after that")
    client_seconds: float = Field(60.0, gt=0, description="the seconds a client may let a full send buffer stand")
    ping_seconds: float = Field(
        15.0, ge=0, description="the seconds between comments on a stream that waits; 0 for none", examples=[15.0]
    )
    cors_origins: list[str] = Field(
        default_factory=list, description="the origins whose web pages may call; '*' for all", examples=[["*"]]
    )


class KubernetesTable(Table):
    """The pods that are engines: those that are ready behind a Service."""

    service: str = Field(min_length=1, description="the name of the Service", examples=["vllm"])
    namespace: str = absent("the namespace of the Service; the gateway's own if absent", min_length=1)
    port: int = absent("the port of the pods; that of the Service's first port if absent", ge=1, le=65535)
    scheme: Literal["http", "https"] = Field("http", description="how the pods are spoken to")


class EnginesTable(Table):
    """The engines behind the gateway, all of one kind and size, from one source or several."""

    kind: EngineKind = Field(description="how the engines are spoken to", examples=["vllm"])
    urls: list[str] = Field(
        default_factory=list, description="the base URL of each engine", examples=[["http://127.0.0.1:8001"]]
    )
    file: str = absent("a file of base URLs, one a line, or Prometheus's file_sd JSON; watched", min_length=1)
    dns: str = absent("a base URL each address of whose host is an engine", min_length=1)
    kubernetes: KubernetesTable | None = Field(None, description="the table [engines.kubernetes]")
    refresh_seconds: float = Field(
        2.0, gt=0, description="the seconds between two readings of file, addresses and pods"
    )
    binding: Binding = Field(
        "late",
        description="when a decode's engine is chosen: after its prefill, or before ('early'); vllm and sglang only",
    )
    api_key_env: str = absent("the environment variable that holds the key the engines ask for", min_length=1)
    kv_lease: float = Field(30.0, gt=0, description="the seconds for which an engine keeps a prompt's KV for another")
    slot_dir: str = absent("the directory where llama.cpp engines save slots (--slot-save-path)", min_length=1)
    ask_usage: bool = Field(
        True, description="whether streams are asked to state their tokens; not passed on if no client asked"
    )
    pass_headers: list[str] = Field(default_factory=list, description="the headers of clients that engines get too")
    check_seconds: float = Field(1.0, gt=0, description="the seconds between two looks at an engine")
    check_transfer: bool = Field(True, description="whether KV is moved between the engines on start-up, as a check")


class LimitsTable(Table):
    """What is refused, and how long anyone waits."""

    max_body_bytes: int = Field(4 << 20, ge=1, le=LARGEST_WHOLE, description="the largest request body, bytes")
    max_prompt_tokens: int = absent("the longest prompt, tokens (estimated)", ge=1, le=LARGEST_WHOLE)
    max_answers: int = Field(256, ge=1, le=LARGEST_WHOLE, description="the most answers of a request: prompts times n")
    max_waiting: int = Field(10_000, ge=0, le=LARGEST_WHOLE, description="the most requests that wait")
    max_wait: float = Field(60.0, gt=0, description="the longest wait for a prefill, and again for a decode, s")
    attempts: int = Field(3, ge=1, le=100, description="how often a prompt is read when engines fail")
    engine_failures: int = Field(
        2, ge=1, le=100, description="how many engines may break off under one request: it may be what kills them"
    )
    token_seconds: float = Field(
        300.0, gt=0, description="the longest silence of an engine, s; a whole answer has a second more for each token"
    )


class GatewayClassTable(Table):
    """Limits of one class, in the place of those of all."""

    name: str = Field(min_length=1, description="the name of a class of the scenario", examples=["chat"])
    max_waiting: int = absent("the most requests of the class that wait", ge=0, le=LARGEST_WHOLE)
    max_wait: float = absent("the longest wait of the class for a prefill, and again for a decode, s", gt=0)


class RuleTable(Table):
    """Which requests are of a class: those that meet every condition given."""

    cls: str = Field(alias="class", min_length=1, description="the name of a class of the scenario", examples=["chat"])
    header: dict[str, str] = absent(
        "header names, each with the value it must have; any client can send them: name a key where a class is earned"
    )
    key: str = absent("the name of an API key ([[keys]])", min_length=1)
    model: str = absent("the model that is asked for", min_length=1)
    path: Literal["completions", "chat", "responses", "messages", "embeddings"] = absent("the end point that is called")
    min_prompt_tokens: int = absent("the least prompt, tokens", ge=0, le=LARGEST_WHOLE)
    max_prompt_tokens: int = absent("the longest prompt, tokens", ge=0, le=LARGEST_WHOLE)


class KeyTable(QuotaTable, NamedKeyTable):
    """A key that clients may come with, and what it may use."""


class TokensTable(Table):
    """How prompts are measured before an engine reads them."""

    bytes_per_token: float = Field(4.0, gt=0, description="the bytes of UTF-8 that count as one prompt token")
    tokenizer: str = absent("the path of a tokenizer.json, to count in its place", min_length=1)
    image_tokens: int = Field(1000, ge=0, le=LARGEST_WHOLE, description="the tokens that a picture counts")
    audio_tokens: int = Field(1000, ge=0, le=LARGEST_WHOLE, description="the tokens that a sound counts")
    video_tokens: int = Field(10_000, ge=0, le=LARGEST_WHOLE, description="the tokens that a film counts")
    file_tokens: int = Field(2000, ge=0, le=LARGEST_WHOLE, description="the tokens that a file counts")

    @property
    def media(self) -> dict[str, int]:
        """Tokens of a part of a message that is no text."""
        return {kind: getattr(self, f"{kind}_tokens") for kind in ("image", "audio", "video", "file")}


class TracingTable(Table):
    """Where spans go, by OpenTelemetry's protocol."""

    endpoint: str = Field(
        min_length=1, description="the base URL of an OTLP collector", examples=["http://127.0.0.1:4318"]
    )
    share: float = Field(1.0, ge=0, le=1, description="the share of traces that are kept, where no client decides")
    service: str = Field("fluidgate", min_length=1, description="the name of the service in the spans")


class AdminTable(Table):
    """The key of the admin API."""

    env: str = absent("the environment variable that holds the key", min_length=1, examples=["FLUIDGATE_ADMIN_KEY"])
    sha256: str = absent("the SHA-256 of the key, in hexadecimal", pattern="^[0-9a-fA-F]{64}$")


class ReplanningTable(Table):
    """When the plan is solved again."""

    enabled: bool = Field(True, description="whether the plan follows the load")
    period: float = Field(Replanning.period, gt=0, description="the age at which a plan is solved again, s")
    look: float = Field(Replanning.look, gt=0, description="the seconds between two looks at the estimates")
    window: float = Field(Replanning.window, gt=0, description="the time constant of the estimates, s")
    moved: float = Field(Replanning.moved, ge=0, description="the relative change for which it is solved again")
    deviations: float = Field(Replanning.deviations, ge=0, description="standard deviations that such a change exceeds")


class PrefixesTable(Table):
    """What is known of the beginnings of prompts."""

    enabled: bool = absent("whether they are looked for; where the policy can use it if absent")
    kv_tokens: int = absent(
        "the tokens of an engine's KV memory; what it says, else the scenario's, if absent", ge=1, le=LARGEST_WHOLE
    )
    kv_events_port: int = absent(
        "the port of vLLM's KV events on each host, that of the first of its engines; not listened to if absent",
        ge=1,
        le=65535,
    )


class GroupTable(Table):
    """Engines that serve one model, and how their requests are told apart and placed."""

    scenario: str = absent("the scenario file, relative to this file", min_length=1, examples=["azure.toml"])
    policy: str = Field(
        "index-and-pool", min_length=1, description="the name of a policy, of a policy file, or PATH.py:NAME"
    )
    name: str = absent(
        "how plan, metrics and log call the group; its model, or its scenario's name, if absent", min_length=1
    )
    model: str = absent("the model name that clients ask for; the engines' own if absent", min_length=1)
    shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = absent(
        "the share of each class, by its name, that comes to this group, of several that serve one model",
        examples=[{"chat": 0.4, "document": 1.0}],
    )
    aliases: list[str] = Field(default_factory=list, description="further names that clients may call the model by")
    default_class: str = absent("the class of requests that no rule names; the first of the scenario if absent")
    seed: int = Field(0, ge=0, le=LARGEST_WHOLE, description="the seed of the policy's draws")
    engines: EnginesTable | None = Field(None, description="the table [engines] with kind and urls")
    classes: list[GatewayClassTable] = Field(default_factory=list, description="tables [[classes]] with limits")
    rules: list[RuleTable] = Field(default_factory=list, description="tables [[rules]], the first that fits counts")


class GatewayTable(GroupTable):
    """The keys of a gateway file: those of its only group of engines, or `groups`, and those of the whole."""

    schema_: SchemaKey = Field(SCHEMA, alias="schema")
    groups: list[GroupTable] = Field(
        default_factory=list, description="tables [[groups]], one for each model, in the place of the keys of one"
    )
    session_header: str = absent(
        "the header by which clients say the session of a request: it stays with one of the groups that share a model",
        min_length=1,
        examples=["x-session-id"],
    )
    server: ServerTable = Field(default_factory=ServerTable, description="the table [server]")
    tracing: TracingTable | None = Field(None, description="the table [tracing]; without it there are no spans")
    admin: AdminTable | None = Field(None, description="the table [admin]; without it there is no admin API")
    limits: LimitsTable = Field(default_factory=LimitsTable, description="the table [limits]")
    keys: list[KeyTable] = Field(default_factory=list, description="tables [[keys]]; without one no key is asked for")
    quota: QuotaTable = Field(default_factory=QuotaTable, description="the table [quota], of keys without own values")
    tokens: TokensTable = Field(default_factory=TokensTable, description="the table [tokens]")
    prefixes: PrefixesTable = Field(default_factory=PrefixesTable, description="the table [prefixes]")
    replanning: ReplanningTable = Field(default_factory=ReplanningTable, description="the table [replanning]")


GROUPS_OWN = tuple(GroupTable.model_fields)
"""Keys that stand in each of several groups, and not beside them."""
