"""Processor time that emulated engines take for each chunk they stream: python -m benchmarks.engine [STREAMS TOKENS]

A process of engines streams to a client in another; the time of one that streams nothing is taken off. On a laptop
this says how many tokens/s a gateway can be tried with.
"""

import asyncio
import resource
import signal
import subprocess
import sys

STREAMS, TOKENS = 240, 300
ENGINES = 2


async def stream(url: str, tokens: int, number: int) -> int:
    """Chunks that came."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"prompt":[%d],"max_tokens":%d,"ignore_eos":true,"stream":true}' % (number, tokens)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    chunks, line = 0, b""
    while not line.startswith(b"data: [DONE]"):
        line = await reader.readline()
        assert line, "the engine cut the stream"
        chunks += line.startswith(b'data: {"id"')
    writer.close()
    return chunks


async def stream_all(urls: list[str], streams: int, tokens: int) -> int:
    return sum(await asyncio.gather(*(stream(urls[k % len(urls)], tokens, k) for k in range(streams))))


def processor_seconds(streams: int, tokens: int, *options: str) -> tuple[float, int]:
    """Of a process of engines that serves so many streams and ends, and the chunks that came."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "fluidgate", "engine", "--port", "0", "--count", str(ENGINES)]
    command += ["--batch-size", "256", "--chunk-size", "512", "--kv-tokens", "10000000", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engines:
        assert engines.stdout is not None
        urls = [engines.stdout.readline().split()[2].rstrip(":") for _ in range(ENGINES)]
        chunks = asyncio.run(stream_all(urls, streams, tokens))
        engines.send_signal(signal.SIGTERM)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, chunks


def main() -> None:
    streams, tokens = (int(word) for word in sys.argv[1:] or (STREAMS, TOKENS))
    for speed in ("1", "4"):
        idle, _ = processor_seconds(0, 0, "--speed", speed)
        busy, chunks = processor_seconds(streams, tokens, "--speed", speed)
        assert chunks == streams * tokens
        each = 1e6 * (busy - idle) / chunks
        print(f"speed {speed}: {streams} streams of {tokens} tokens on {ENGINES} engines: {each:.1f} us a chunk")


if __name__ == "__main__":
    main()
