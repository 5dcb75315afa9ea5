"""The whole gateway before two real llama.cpp servers, with the official client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai

from fluidgate.gateway.client.running import running_gateway
from tests.gateway.conftest import SLOTS, LlamaServers
from tests.gateway.served import scenario, settings_of


def test_prompts_are_read_and_answered_by_class(llama_servers: LlamaServers, tmp_path: Path) -> None:
    of = scenario(rate=0.05)
    of = of.replace(gpu=of.gpu.model_copy(update={"batch_size": SLOTS}))
    settings = settings_of(
        tmp_path,
        llama_servers.urls,
        of,
        policy="gate-and-route",
        kind=f'llamacpp"\nslot_dir = "{llama_servers.slot_folder}',
        more='[[rules]]\nclass = "code"\nmin_prompt_tokens = 40\n',
    )

    async def run() -> list[str]:
        async with running_gateway(settings) as (gateway, url):
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            models = await client.models.list()
            assert [model.id for model in models.data] == ["tiny"]
            texts = await asyncio.gather(*(answer(client, f"{k} and so on, " * (1 + 20 * (k % 2))) for k in range(6)))
            again = await answer(client, "0 and so on, ")
            assert again == texts[0]
            stages = gateway.groups[0].snapshot()["classes"]
            assert all(number == 0 for each in stages.values() for number in each.values())
            return texts

    texts = asyncio.run(run())
    assert all(texts)
    records = [line for line in (tmp_path / "requests.log").read_text().splitlines() if '"completed"' in line]
    assert len(records) == 7
    assert sum('"class":"code"' in line for line in records) == 3
    assert not list(llama_servers.slot_folder.glob("fluidgate-*"))


async def answer(client: openai.AsyncOpenAI, prompt: str) -> str:
    """Streamed; the tokens that came are those that were asked for."""
    stream = await client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0, stream=True)
    return "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
