"""Prompts that go on begin as they were before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.gateway.client.prompt_text import answered, chain_of
from fluidgate.gateway.prefixes import Chain

MEDIA = {"image": 100, "audio": 50, "video": 10, "file": 20}

TEXTS = st.text(max_size=120)
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}),
        st.fixed_dictionaries(
            {
                "role": st.just("user"),
                "content": st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})),
            }
        ),
        st.fixed_dictionaries(
            {
                "role": st.just("assistant"),
                "content": st.none(),
                "tool_calls": st.just([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
            }
        ),
    ),
    max_size=6,
)


def chat(messages: list[Any], **more: Any) -> Chain:
    chain = chain_of("chat", {"model": "m", "messages": messages, **more}, MEDIA)
    assert chain is not None
    return chain


def begins(longer: Chain, shorter: Chain) -> bool:
    return longer.hashes[: len(shorter.hashes)].tolist() == shorter.hashes.tolist()


@given(MESSAGES, TEXTS.filter(bool), MESSAGES)
def test_a_chat_goes_on_from_turn_to_turn(messages: list[Any], said: str, more: list[Any]) -> None:
    messages = [*messages, {"role": "user", "content": "?"}]
    once = answered("chat", chat(messages), said)
    turn = chat([*messages, {"role": "assistant", "content": said, "tool_calls": None, "refusal": None}, *more])
    assert begins(turn, once)


@given(st.text(min_size=1, max_size=300), TEXTS, TEXTS)
def test_so_does_a_completion(prompt: str, said: str, more: str) -> None:
    first = chain_of("completion", {"model": "m", "prompt": prompt}, MEDIA)
    assert first is not None
    later = chain_of("completion", {"model": "m", "prompt": prompt + said + more}, MEDIA)
    assert later is not None
    assert begins(later, answered("completion", first, said))


@pytest.mark.parametrize("kind", ["responses", "messages"])
def test_so_do_the_other_end_points(kind: Any) -> None:
    asked = {"role": "user", "content": "word " * 40}
    said = "said " * 40
    key, part = ("input", "output_text") if kind == "responses" else ("messages", "text")
    answer = {"role": "assistant", "content": [{"type": part, "text": said}]}
    if kind == "responses":
        answer |= {"type": "message", "id": "msg_1", "status": "completed"}
    first = chain_of(kind, {"model": "m", key: [asked]}, MEDIA)
    later = chain_of(kind, {"model": "m", key: [asked, answer, asked]}, MEDIA)
    assert first is not None
    assert later is not None
    assert begins(later, answered(kind, first, said))


def test_so_do_token_ids() -> None:
    first = chain_of("completion", {"model": "m", "prompt": list(range(100))}, MEDIA)
    later = chain_of("completion", {"model": "m", "prompt": list(range(180))}, MEDIA)
    assert first is not None
    assert later is not None
    assert answered("completion", first, list(range(100, 150))).hashes.tolist() == later.hashes[:9].tolist()


LONG = {"role": "user", "content": "word " * 100}


@pytest.mark.parametrize(
    "other",
    [
        {"model": "adapter"},
        {"cache_salt": "s"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{**LONG, "role": "system"}]},
    ],
)
def test_what_no_engine_shares_is_told_apart(other: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [LONG]}
    one, two = chain_of("chat", body, MEDIA), chain_of("chat", body | other, MEDIA)
    assert one is not None
    assert two is not None
    assert not set(one.hashes.tolist()) & set(two.hashes.tolist())


def test_a_text_part_is_its_text() -> None:
    parts = [{"type": "text", "text": "word " * 50}, {"type": "text", "text": "word " * 50}]
    assert chat([{"role": "user", "content": parts}]).hashes.tolist() == chat([LONG]).hashes.tolist()


def test_pictures_count_their_tokens_and_differ_by_content() -> None:
    def with_picture(data: str) -> Chain:
        return chat([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}]}, LONG])

    one, same, other = (with_picture(data) for data in ("a" * 50_000, "a" * 50_000, "b" + "a" * 50_000))
    assert one.hashes.tolist() == same.hashes.tolist()
    assert not set(one.hashes.tolist()) & set(other.hashes.tolist())
    assert 400 + 500 <= one.size < 400 + 600


def test_several_prompts_have_no_one_beginning() -> None:
    def completion(prompt: Any) -> Chain | None:
        return chain_of("completion", {"model": "m", "prompt": prompt}, MEDIA)

    assert completion(["a", "b"]) is None
    assert completion([[1, 2], [3]]) is None
    assert completion([1 << 70]) is None
    one, several = completion([1] * 40), completion([[1] * 40])
    assert one is not None
    assert several is not None
    assert one.hashes.tolist() == several.hashes.tolist()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("responses", {"input": "hello", "instructions": "be kind"}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]}),
        ("messages", {"system": "be kind", "messages": [{"role": "user", "content": "hello"}]}),
        ("embeddings", {"input": "hello"}),
        ("embeddings", {"messages": [{"role": "user", "content": "hello"}]}),
    ],
)
def test_every_end_point_has_a_chain(kind: Any, body: dict[str, Any]) -> None:
    chain = chain_of(kind, {"model": "m", **body}, MEDIA)
    assert chain is not None
    assert chain.text
    assert chain.size >= 5
