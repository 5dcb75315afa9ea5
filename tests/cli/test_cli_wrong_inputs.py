"""Wrong inputs of every command: one line that names what is wrong and its mend, exit status 2, no traceback.

Each kind was tried by hand first, and mended where the answer was not good.
"""

from __future__ import annotations

import asyncio
import gzip
import http.server
import os
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ROOT, TWO_CLASS, Command

RUN = "--gpus 2 --horizon 20 --replications 1"
FLEET = ROOT / "examples" / "chat-fleet.toml"
ROWS = ROOT / "examples" / "measurements.csv"
HEADER = "arrival_time,prompt_tokens,output_tokens\n"
GOOD = HEADER + "0,100,20\n1,300,40\n3,200,10\n"
LOG = "arrival_time,prompt_tokens,output_tokens,ttft,latency\n" + "".join(f"{k},100,20,0.1,1.0\n" for k in range(9))
OWN = """from fluidgate import find_policy
from fluidgate.policies import tables_of

HELP = {{}}

def help_with(view):
    return 0

def {name}({arguments}):
    return {body}

M = find_policy("gate-and-route").with_functions("m", {name}={name})
"""
RULE = '[[rules]]\nclass = "decode-heavy"\nmin_prompt_tokens = {least}\nmax_prompt_tokens = {most}\n'
GATEWAY = 'schema = 1\nscenario = "{scenario}"\n[engines]\nkind = "{kind}"\nurls = [{urls}]\n'


def gateway(urls: str = '"http://127.0.0.1:1"', scenario: str = "s.toml", kind: str = "vllm") -> str:
    return GATEWAY.format(urls=urls, scenario=scenario, kind=kind)


def of_profile(text: str, name: str) -> str:
    head, _, rest = text.partition("alpha =")
    return f'{head}profile = "{name}"\n[pricing]{rest.partition("[pricing]")[2]}'


def one_class(text: str) -> str:
    head, table, _ = text.partition("[[classes]]")
    return head + table + text.rpartition(table)[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of all kinds, most of them wrong."""
    made = tmp_path_factory.mktemp("wrong")
    text = TWO_CLASS.read_text("utf-8")
    binary = bytes(range(256)) * 2
    files: dict[str, str | bytes] = {
        "s.toml": text,
        "s.toml.gz": gzip.compress(text.encode()),
        "utf16.toml": text.encode("utf-16"),
        "latin.toml": "# é\n".encode("latin-1") + text.encode(),
        "binary.toml": binary,
        "control.toml": binary.replace(b"\0", b"\1"),
        "blank.toml": "\n# nothing\n",
        "key-twice.toml": text.replace("alpha = 0.0174", "alpha = 0.0174\nalpha = 0.02"),
        "table-twice.toml": text + "\n[gpu]\nalpha = 1\n",
        "scenario.json": "{}",
        "policy.toml": 'schema = 1\npolicy = "fi-wsp"\nparameters = {}\n',
        "good.csv": GOOD,
        "cut.csv.gz": gzip.compress(GOOD.encode())[:-12],
        "broken.py": "raise RuntimeError('boom')\n",
        "syntax.py": "def :\n",
        "empty.py": "x = 1\n",
        "g.toml": gateway(),
        "full.toml": text.replace("patience_rate = 0.1", "patience_rate = 0"),
        "g-full.toml": gateway(scenario="full.toml"),
        "g-none.toml": gateway(scenario="none.toml"),
        "g-kind.toml": gateway(kind="vlm"),
        "g-twice.toml": gateway('"http://127.0.0.1:8001", "http://localhost:8001/"'),
        "g-port.toml": gateway('"http://LOCALHOST", "http://127.0.0.1:80"'),
        "g-v1.toml": gateway('"http://127.0.0.1:1/v1"'),
        "g-bare.toml": gateway('"127.0.0.1:8000"'),
        "g-beyond.toml": gateway('"http://127.0.0.1:99999"'),
        "g-blank.toml": gateway('"http://${HOST}:8000"'),
        "g-below-v1.toml": gateway('"http://127.0.0.1:1/v1/chat/completions"'),
        "one.toml": one_class(text),
        "curly.toml": text.replace('"two-class"', "\u201ctwo-class\u201d"),
        "comma.toml": text.replace("alpha = 0.0174", "alpha = 0,0174"),
        "colon.toml": text.replace("alpha = 0.0174", "alpha : 0.0174"),
        "unit.toml": text.replace("alpha = 0.0174", "alpha = 17.4ms"),
        "yes.toml": text + '\n[engine]\nprefix_caching = "yes"\n',
        "profile-of-scenario.toml": of_profile(text, "s.toml"),
        "lengths.toml": text + '\n[lengths]\noutput = "empirical"\ntraces = ["none.csv"]\n',
        "twice.csv": GOOD.replace("output_tokens", "output_tokens,prompt_tokens").replace("0,100,20", "0,100,20,5"),
        "capital.csv": GOOD.replace("arrival_time", "Arrival Time"),
        "half.csv": GOOD.replace("prompt_tokens,output_tokens", "in,out"),
        "page.csv": "<!DOCTYPE html><html></html>\n",
        "log.csv": LOG,
        "rows-twice.csv": "batch_size,chunk_size,seconds,seconds\n8,256,1,2\n",
        "book.xlsx": b"PK\x03\x04",
        "too-many.py": OWN.format(
            name="tabulate", arguments="plan, gpus", body="tables_of(plan, gpus)._replace(mixed_gpus=10**9)"
        ),
        "no-number.py": OWN.format(
            name="tabulate", arguments="plan, gpus", body="tables_of(plan, gpus)._replace(toll=float('nan'))"
        ),
        "leaves.py": OWN.format(name="tabulate", arguments="plan, gpus", body="exit(4)"),
        "helped.py": OWN.format(name="gate", arguments="view, tables", body="len(HELP)"),
        "called.py": OWN.format(name="gate", arguments="view, tables", body="help_with(view)"),
        "builtin.py": "from fluidgate import find_policy\nM = find_policy('fi-wsp').with_functions('m', gate=len)\n",
        "g-rule.toml": gateway() + RULE.format(least=10, most=3),
        "g-traced.toml": gateway() + '[tracing]\nendpoint = "nowhere"\n',
        "rows-semi.csv": ROWS.read_text("utf-8").replace(",", ";"),
        "exits.py": "import sys\nsys.exit(3)\n",
        "tabulates.py": OWN.format(name="tabulate", arguments="plan, gpus", body="1 / 0"),
        "imports.py": OWN.format(name="gate", arguments="view, tables", body="__import__('json').loads('0')").replace(
            "    return __import__('json')", "    import json\n    return json"
        ),
    }
    for name, content in files.items():
        (made / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (made / "dir").mkdir()
    return made


FILES = [
    ("plan nothing.toml", "nothing.toml: no such file; give the path of a scenario file"),
    ("plan S.toml", "S.toml: no such file; did you mean 's.toml'?"),
    ("plan nowhere/s.toml", "no folder 'nowhere'"),
    ("plan ''", "the name of a scenario file is empty"),
    ("plan dir", "dir: a folder"),
    ("plan s.toml.gz", "s.toml.gz: packed by gzip; unpack it first"),
    ("plan utf16.toml", "UTF-16; save the file as UTF-8"),
    ("plan latin.toml", "line 1: not UTF-8"),
    ("plan binary.toml", "not a text but binary"),
    ("plan control.toml", "not a text but binary"),
    ("plan blank.toml", "empty; write a scenario"),
    ("plan key-twice.toml", "this key is given twice; remove one"),
    ("plan table-twice.toml", "the table [gpu] is given twice"),
    ("plan good.csv", "good.csv: not TOML, as its name says"),
    ("plan scenario.json", "scenario.json: not TOML, as its name says"),
    ("plan chat=s.toml", "CLASS=FILE is not taken here, so give 's.toml' alone"),
    ("plan g.toml", "g.toml: a gateway file, not a scenario; give the file that its key scenario names"),
    ("plan policy.toml", "a policy file, not a scenario"),
    ("engine nothing.toml", "nothing.toml: no such file"),
    ("size nothing.toml", "nothing.toml: no such file"),
    ("serve nothing.toml", "nothing.toml: no such file; give the path of a gateway file"),
    ("serve s.toml", "s.toml: a scenario, not a gateway file"),
    ("serve g-none.toml", "g-none.toml: scenario: no file 'none.toml'"),
    ("serve g-kind.toml", "engines.kind: must be 'vllm'"),
    ("serve g-twice.toml", "engines.urls[1]: 'http://localhost:8001/' is the engine of engines.urls[0]"),
    ("serve g-port.toml", "engines.urls[1]: 'http://127.0.0.1:80' is the engine of engines.urls[0]"),
    ("serve g-v1.toml", "give it without '/v1'"),
    ("serve g-bare.toml", "'127.0.0.1:8000' is no base URL"),
    ("serve g-beyond.toml", "'http://127.0.0.1:99999' is no base URL"),
    ("serve g-full.toml --check", "requests that never leave"),
    ("serve g.toml --policy nothing", "unknown policy 'nothing'"),
    ("serve g.toml --policy fi-wsp,gi-wsp", "`serve` takes one"),
    ("serve g.toml --port 70000", "--port"),
    ("serve g.toml --log-level loud", "--log-level"),
]

TRACES = [
    ("replay s.toml nothing.csv --policy fi-wsp --gpus 2", "nothing.csv: no such file"),
    ("replay s.toml decode-heavy=nothing.csv --policy fi-wsp --gpus 2", "nothing.csv: no such file"),
    (
        "replay s.toml decode-heavi=good.csv --policy fi-wsp --gpus 2",
        "no class 'decode-heavi'; did you mean",
    ),
    ("replay s.toml good.csv --policy fi-wsp --gpus 2", "good.csv: its class is unclear"),
    ("replay s.toml cut.csv.gz --policy fi-wsp --gpus 2", "not a whole gzip file"),
    ("replay s.toml binary.toml --policy fi-wsp --gpus 2", "binary.toml: TOML, not a trace"),
    ("replay s.toml --policy fi-wsp --gpus 2", "Missing argument 'TRACE...'"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --log out.txt", "must end in .csv or .parquet"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --log no/out.csv", "no/out.csv"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --map promt_tokens=a", "'prompt_tokens'"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --class-column kind", "no column 'kind'"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --unit min", "'min' is not one of 's'"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --rate-scale 0", "--rate-scale"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --requests 0", "--requests: must be at least 1"),
    ("replay s.toml decode-heavy=good.csv --policy fi-wsp --gpus 2 --times repeat", "give --horizon or --requests"),
    ("plan s.toml --trace nothing.csv", "nothing.csv: no such file"),
    ("plan s.toml --trace good.csv", "its class is unclear"),
    ("workload", "Missing argument 'TRACE...'"),
    ("workload good.csv", "Missing option '--gpus'"),
    ("workload dir --gpus 1", "dir: a folder"),
    ("workload good.csv good.csv --gpus 1", "'good.csv' is given twice; name each trace once"),
    ("workload chat= --gpus 1", "name the file behind 'chat='"),
    ("workload =good.csv --gpus 1", "name a class before '='"),
    ("workload s.toml --gpus 1", "s.toml: TOML, not a trace"),
    ("workload good.csv --gpus 1 -o no/x.toml", "no folder 'no'"),
    ("workload good.csv --gpus 1 -o /dev/full", "/dev/full: cannot be written"),
    ("workload good.csv --gpus 1 --engine-log nothing.log", "nothing.log: no such file"),
    ("workload good.csv --gpus 1 --engine-log s.toml", "no line of vLLM in it"),
    ("workload good.csv --gpus 1 --profile s.toml", "s.toml: a scenario, not a profile file"),
    ("workload good.csv --gpus 1 --scale nan", "--scale"),
    ("workload good.csv --gpus 1 --map arrival_time=a --map arrival_time=b", "given twice"),
    ("calibrate", "MEASUREMENTS: missing"),
    ("calibrate nothing.csv", "nothing.csv: no such file"),
    ("calibrate good.csv", "no column 'batch_size'"),
    ("calibrate dir", "dir: a folder"),
    ("calibrate {ROWS} -o no/p.toml", "no folder 'no'"),
    ("calibrate {ROWS} -o dir", "'dir' is a folder"),
    ("calibrate {ROWS} --law cubic", "'cubic' is not one of"),
    ("calibrate {ROWS} --law paper --kv-tokens 5", "--kv-tokens: only with --law linear"),
    ("calibrate {ROWS} --where x", "must be COLUMN=VALUE"),
    ("calibrate {ROWS} --kv-tokens -1", "--kv-tokens: must be 1 or more"),
    ("calibrate {ROWS} --memory-bandwidth inf", "must be a finite number"),
    ("calibrate {ROWS} --measured yesterday", "--measured: must be a year"),
    ("calibrate {ROWS} --hold-out 0.5", "only with --from-log"),
    ("calibrate --from-log good.csv", "--scenario"),
    ("calibrate --from-log chat=good.csv --scenario s.toml", "give 'good.csv' alone"),
    ("calibrate --from-log good.csv --scenario s.toml", "no times of tokens"),
]

POLICIES = [
    (f"simulate s.toml {RUN}", "Missing option '--policy'"),
    (f"simulate s.toml --policy '' {RUN}", "names no policy"),
    (f"simulate s.toml --policy FI-WSP {RUN}", "did you mean 'fi-wsp'?"),
    (f"simulate s.toml --policy fi-wsp,gi-wsp {RUN}", "`simulate` takes one; for several: fluidgate compare"),
    (f"simulate s.toml --policy nothing.toml {RUN}", "nothing.toml: no such file"),
    (f"simulate s.toml --policy nothing.py:A {RUN}", "nothing.py: no such file"),
    (f"simulate s.toml --policy broken.py:A {RUN}", "broken.py: line 1: raises RuntimeError: boom"),
    (f"simulate s.toml --policy syntax.py:A {RUN}", "raises SyntaxError"),
    (f"simulate s.toml --policy empty.py {RUN}", "give empty.py:NAME"),
    (f"simulate s.toml --policy empty.py:x {RUN}", "'x' is no policy but of type int"),
    (f"simulate s.toml --policy fi-wsp+replann {RUN}", "unknown policy"),
    (f"compare s.toml --policy fi-wsp,fi-wsp {RUN}", "'fi-wsp' is named twice"),
    (f"compare s.toml --policy , {RUN}", "names no policy"),
    (f"compare s.toml --policies nothing {RUN}", "unknown policy 'nothing'"),
    ("tune s.toml --gpus 2 --policy fi-wsp", "has no parameters to tune"),
    ("tune s.toml --gpus 2 -o out.txt", "a policy file ends in .toml"),
    ("tune s.toml --gpus 2 -o policy.toml", "is there already"),
    ("optimum s.toml --gpus 1 --policy nothing", "unknown policy"),
    ("bound s.toml --gpus 2 --policy nothing", "unknown policy"),
    ("plan s.toml --policy fi-wsp", "give --latency too"),
    ("plan s.toml --latency --gpus 4 --policy nothing", "unknown policy"),
]

NUMBERS = [
    ("plan s.toml --gpus 1.5", "must be a whole number, but is '1.5'"),
    ("plan s.toml --prefix-hit-rate nan", "--prefix-hit-rate"),
    ("plan s.toml --sessions-rate inf", "must be a finite number, but is inf"),
    (f"simulate s.toml --policy fi-wsp {RUN} --horizon 1e400", "--horizon"),
    (f"simulate s.toml --policy fi-wsp {RUN} --replications 1000000000000", "at most 1,000,000"),
    (f"simulate s.toml --policy fi-wsp {RUN} --think 3", "give --users too"),
    (f"simulate s.toml --policy fi-wsp {RUN} --think nan --users 3", "--think"),
    (f"simulate s.toml --policy fi-wsp {RUN} --executor rays", "must be local, ray or ray://HOST:PORT"),
    (f"simulate s.toml --policy fi-wsp {RUN} --keep s.toml", "--keep: 's.toml' can't be written to"),
    (f"simulate s.toml --policy fi-wsp {RUN} --replan-every 3", "give --fidelity iteration"),
    ("size s.toml", "its rates are per GPU"),
    ("size {FLEET} --target ttft_p999=1", "did you mean 'ttft_p99'?"),
    ("size {FLEET} --target ttft_p99=-1", "must be a time above 0 s"),
    ("size {FLEET} --target goodput=99", "must be a share"),
    ("size {FLEET} --profile h100/llama-3.1-8", "did you mean 'h100/llama-3.1-8b'?"),
    ("size {FLEET} --batch-size 64,x", "must be whole numbers"),
    ("size {FLEET} --gpu-hour -1", "--gpu-hour: must be a price above 0"),
    ("size {FLEET} --spare -1", "--spare: must be at least 0"),
    ("size {FLEET} --max-gpus 0", "--max-gpus: must be at least 1"),
    ("size {FLEET} --save s.toml", "s.toml: is a file"),
    ("size {FLEET} --html no/x.html", "no folder 'no'"),
    ("tune s.toml --gpus 2 --budget 0", "--budget"),
    ("optimum s.toml --gpus 5", "this would fit: --gpus 1"),
    ("optimum s.toml --gpus 1 --accuracy 0", "--accuracy: must be between 0 and 1"),
    ("bound s.toml --gpus 2 --scheme seperate", "'seperate' is not one of"),
    ("frontier s.toml --indicator max_tpo", "did you mean 'max_tpot'?"),
    ("frontier s.toml --indicator max_tpot --points 1", "--points: must be from 2"),
    ("frontier s.toml --indicator max_tpot --from 1 --to 0", "--to: 0 is not above --from 1"),
    ("frontier s.toml --indicator max_tpot -o no/x.csv", "no folder 'no'"),
    ("probe --preset tiny --layers 0", "--layers: is 0"),
    ("probe --contexts 5", "--contexts needs --url"),
    ("probe --url 127.0.0.1:8000", "is no address"),
    ("probe --url http://127.0.0.1:1 --max-seconds nan", "--max-seconds"),
    ("engine --count 0", "--count: must be at least 1"),
    ("engine --count 2 --port 65535", "go beyond 65535"),
    ("engine --speed 0", "--speed: must be above 0"),
    ("engine --speed inf", "--speed"),
    ("engine --model ''", "--model: must not be empty"),
    ("engine --role prefill", "goes with --kind sglang"),
    ("engine --host no-such-host.invalid", "give another --host"),
    ("watch 127.0.0.1:1", "is no URL of a gateway"),
    ("watch http://127.0.0.1:1 --key-env NOTHING", "the environment has no 'NOTHING'"),
    ("paper figure-99", "did you mean 'figure-9'?"),
    ("paper figure-2 --data nowhere", "'nowhere' does not exist"),
    ("policies --format xml", "'xml' is not one of"),
    ("profiles --json --format csv", "not with --format csv"),
    ("schema scenari", "'scenari' is not one of"),
    ("completion tcsh", "'tcsh' is not one of"),
    ("plna s.toml", "'plan'"),
]

WRITTEN_OVER = [
    ("workload good.csv --gpus 1 -o good.csv", "--output: 'good.csv' is read, as TRACE, and would be written over"),
    ("workload a=good.csv --gpus 1 -o ./good.csv", "'./good.csv' is read, as TRACE"),
    ("workload good.csv --gpus 1 --plot a.png --qq a.png", "--qq: 'a.png' is read, as --plot"),
    ("replay one.toml good.csv --policy fi-wsp --gpus 2 --log good.csv", "--log: 'good.csv' is read, as TRACE"),
    ("calibrate rows-twice.csv -o rows-twice.csv", "scenarios name profile files by .toml; give such a name"),
    ("calibrate --from-log log.csv --scenario s.toml -o s.toml", "--output: 's.toml' is read, as --scenario"),
    ("frontier s.toml --indicator max_tpot -o s.toml", "--output: 's.toml' is read, as SCENARIO"),
    ("tune s.toml --gpus 2 -o s.toml --force", "--output: 's.toml' is read, as SCENARIO"),
    ("size s.toml --html s.toml", "--html: 's.toml' is read, as SCENARIO"),
]
"""Outputs that are inputs."""

UNREAD = [
    ("plan s.toml --sessions-rate 5", "--sessions-rate: only with --trace"),
    ("size {FLEET} --map prompt_tokens=x", "--map: says how a trace is read, and there is none; give --trace FILE too"),
    ("size {FLEET} --unit ms", "--unit: says how a trace is read"),
    ("size {FLEET} --skip-empty", "--skip-empty: says how a trace is read"),
    ("size {FLEET} --class-column kind", "--class-column: says how a trace is read"),
    ("size {FLEET} --benchmark 1", "--benchmark: says how a trace is read"),
    ("size {FLEET} --force", "--force: only with --save"),
    ("size {FLEET} --target ttft=1", "--target: ttft is the limit that goodput counts by"),
    ("size {FLEET} --target ttft_p99=1 --target ttft_p99=2", "--target: ttft_p99 is given twice"),
    ("size {FLEET} --target ttft_p99", "must be KEY=VALUE such as ttft_p99=1.0"),
    ("replay one.toml good.csv --policy fi-wsp --gpus 2 --stretch 5", "--stretch: only with --times resample"),
    ("optimum s.toml --gpus 1 --horizon 5", "--horizon: only with --policy"),
    ("bound s.toml --gpus 1 --replications 6", "--replications: only with --policy"),
    ("calibrate --from-log log.csv --scenario s.toml --law paper", "--law: not with --from-log"),
    ("calibrate --from-log log.csv --scenario s.toml --pooled", "--pooled: not with --from-log"),
    ("calibrate --from-log log.csv --scenario s.toml --unit ms", "--unit: only with --table"),
    ("calibrate --from-log log.csv --scenario s.toml --min-chunk 5", "--min-chunk: only with --table"),
    ("calibrate --from-log log.csv --scenario s.toml --map batch_size=b", "--map batch_size: a column of --table"),
    ("workload --engine-log s.toml --gpus 3", "--gpus: only with TRACE"),
    ("examples --force", "--force: only with DIR"),
    ("schema gateway --save dir", "KIND: --save writes the schemas of all kinds"),
]
"""Options that nothing would read."""

EMPTY = [
    (f"simulate s.toml --policy fi-wsp {RUN} --keep ''", "--keep: must not be empty; give DIR, or leave it out"),
    ("size {FLEET} --save ''", "--save: must not be empty"),
    ("size {FLEET} --html ''", "--html: must not be empty"),
    ("size {FLEET} --profile ''", "--profile: must not be empty"),
    ("size {FLEET} --batch-size ''", "--batch-size: must not be empty"),
    ("plan s.toml --plot ''", "--plot: must not be empty"),
    ("schema --save ''", "--save: must not be empty"),
    ("serve g.toml --host ''", "--host: must not be empty"),
    ("engine --host ''", "--host: must not be empty"),
    ("workload good.csv --gpus 1 --name ' '", "--name: must not be empty"),
]

KINDS = [
    ("plan profile-of-scenario.toml", "gpu.profile: s.toml: a scenario, not a profile file"),
    ("size {FLEET} --profile g.toml", "g.toml: a gateway file, not a profile file"),
    (f"simulate s.toml --policy one.toml {RUN}", "one.toml: a scenario, not a policy file"),
    (f"simulate s.toml --policy good.csv {RUN}", "policy 'good.csv': a file, and no policy"),
    (f"simulate s.toml --policy dir:M {RUN}", "policy 'dir:M': a folder, and no policy"),
    (f"simulate lengths.toml --policy fi-wsp {RUN}", "lengths.traces: none.csv: no such file"),
    ("workload broken.py --gpus 1", "broken.py: Python, not a trace"),
    ("workload page.csv --gpus 1", "page.csv: a web page, not a trace"),
    ("workload book.xlsx --gpus 1", "book.xlsx: a spreadsheet; save it as CSV"),
    ("workload {ROWS} --gpus 1", "measured iterations are read by `fluidgate calibrate`"),
    ("workload rows-twice.csv --gpus 1", "no trace but measured iterations"),
    ("workload /dev/zero --gpus 1", "/dev/zero: a device that gives bytes without end"),
    ("plan /dev/zero", "/dev/zero: a device that gives bytes without end"),
    ("plan https://example.com/s.toml", "URLs are not read, so download it first"),
    ("plan '~/s.toml'", "'~' stands for no folder here"),
    ("serve g-blank.toml --check", "'http://${HOST}:8000' is no base URL"),
    ("serve g-below-v1.toml --check", "give it without '/v1/chat/completions'"),
]
"""A file of another kind than is wanted."""

LINES = [
    ("plan curly.toml", "line 7, column 8: not TOML: Invalid value; write straight quotes"),
    ("plan comma.toml", "write 0.0174"),
    ("plan colon.toml", "write '=' in the place of ':'"),
    ("plan unit.toml", "write the number alone, 17.4"),
    ("plan yes.toml", "engine.prefix_caching: must be true or false, but is 'yes'"),
    ("workload twice.csv --gpus 1", "line 1: the column 'prompt_tokens' is there twice"),
    ("workload capital.csv --gpus 1", "no column 'arrival_time'; did you mean 'Arrival Time'?"),
    ("workload half.csv --gpus 1", "no column 'prompt_tokens'; --map prompt_tokens=COLUMN says which one it is"),
    ("calibrate rows-twice.csv", "line 1: the column 'seconds' is there twice"),
    (f"simulate s.toml --policy exits.py:M {RUN}", "exits.py: line 2: raises SystemExit: 3"),
    (f"simulate s.toml --policy tabulates.py:M {RUN}", "tabulates.py, line 9: tabulate raises ZeroDivisionError"),
    (f"simulate s.toml --policy leaves.py:M {RUN}", "tabulate raises SystemExit: 4"),
    (
        f"simulate s.toml --policy too-many.py:M {RUN}",
        "tables.mixed_gpus: must be from 0 to 2, but is 1000000000",
    ),
    (f"simulate s.toml --policy no-number.py:M {RUN}", "tables.toll: is nan"),
    (
        f"simulate s.toml --policy builtin.py:M {RUN}",
        "decision function 'len': no Python function; write one",
    ),
    (f"simulate s.toml --policy helped.py:M {RUN}", "it reads HELP, a dict from outside"),
    (f"simulate s.toml --policy called.py:M {RUN}", "it calls help_with, which is not compiled"),
    ("serve g-rule.toml --check", "rules[0]: min_prompt_tokens 10 is above max_prompt_tokens 3"),
    ("serve g-traced.toml --check", "tracing.endpoint: 'nowhere' is no base URL"),
    ("replay - - --policy fi-wsp --gpus 2", "TRACE: '-' is standard input, which SCENARIO is read from; name a file"),
    ("calibrate --from-log - --scenario -", "'-' is standard input, which"),
    ("calibrate s.toml", "s.toml: TOML, not measured iterations, as its name says"),
    (f"simulate s.toml --policy imports.py:M {RUN}", "can't be compiled: it imports; do so at the top of the file"),
]

WORDS = [
    ("workload good.csv --gpus 0", "--gpus: must be from 1"),
    ("workload good.csv --gpus 1 --seed -1", "--seed: must be at least 0"),
    ("workload good.csv --gpus 1 --classes 0", "--classes: 0 asked for"),
    ("calibrate {ROWS} --min-chunk -5", "--min-chunk: must be from 1"),
    ("calibrate {ROWS} --map second=seconds", "--map: no standard column 'second'"),
    ("calibrate --from-log log.csv --scenario s.toml --hold-out 50", "--hold-out: must be at least 0 and below 1"),
    ("frontier s.toml --indicator max_tpot --from -1", "--from: must be at least 0"),
    (f"simulate s.toml --policy fi-wsp {RUN} --replan-moved 3", "--replan-every, --look-every, --estimate-over,"),
    ("size {FLEET} --batch-size 99999999999", "--batch-size: must be at least 1 and at most 2147483647"),
    ("size {FLEET} --profile h100", "did you mean 'h100/"),
    ("size {FLEET} --gpu-hour 2,50", "must be a number, but is '2,50'; write 2.5"),
    ("size {FLEET} --spare 1.5", "must be a whole number, but is '1.5'"),
    ("size {FLEET} --chunk-size 2k", "must be whole numbers, but is '2k'"),
    ("plan s.toml --gpus 10%", "must be a whole number, but is '10%'"),
    ("plan s.toml --prefix-hit-rate 50%", "must be a number, but is '50%'; write 0.5"),
    ("plan s.toml --prefix-hit-rate 50", "must be at least 0 and less than 1, but is 50"),
    ("plan s.toml -gpus 3", "Did you mean '--gpus'?"),
    ("engine --port 80a", "must be a whole number, but is '80a'"),
    ("engine --kv-tokens 0", "must be at least 1, but is 0"),
    (
        "replay one.toml good.csv --policy fi-wsp --gpus 2 --times resample --horizon 9 --stretch 0",
        "--stretch: must be",
    ),
    ("engine --seed -1", "--seed: must be at least 0, but is -1"),
    ("engine --transfer-latency -1", "--transfer-latency: must be at least 0"),
]
"""Messages that speak of what was typed."""


ALL = [*FILES, *TRACES, *POLICIES, *NUMBERS, *WRITTEN_OVER, *UNREAD, *EMPTY, *KINDS, *LINES, *WORDS]


@pytest.mark.parametrize(("command", "words"), ALL, ids=lambda value: value.replace("/", "|")[:70])
def test_wrong_input_is_one_line(
    fluidgate: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    outcome = fluidgate(*shlex.split(command.format(FLEET=FLEET, ROWS=ROWS)))
    assert (outcome.status, len(outcome.notices), outcome.output) == (2, 1, ""), outcome
    assert words in outcome.notices[0]
    assert sorted(folder.rglob("*")) == before


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers with the status of its server."""

    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"<html>\nnot this one\n</html>")

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that has read enough is no trouble."""


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_unusual_and_works(
    fluidgate: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(folder)
    Path("rows.xls").write_bytes(ROWS.read_bytes())
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    request.addfinalizer(lambda: os.close(reader))
    plain, parted = (fluidgate("calibrate", path, "--name", "p", "--json") for path in (ROWS, "rows-semi.csv"))
    assert parted.output == plain.output.replace(ROWS.name, "rows-semi.csv")
    for arguments in (
        "calibrate rows.xls --gpu '' --name p.toml -o p.toml",
        "calibrate rows.xls --name p.toml -o p.toml",  # a second time: the name is no file to read
        "calibrate rows.xls -o pipe",
        "calibrate rows.xls -o /dev/stdout",
        "replay one.toml good.csv --policy fi-wsp --gpus 2 --stretch 60",  # as it is without
    ):
        outcome = fluidgate(*shlex.split(arguments))
        assert outcome.status == 0, outcome
    late = fluidgate("replay", "one.toml", "good.csv", "--policy", "fi-wsp", "--gpus", "2", "--warmup", "1000")
    assert late.status == 0
    assert "no request arrives in the window of 0 s" in late.notices[-1]


@pytest.fixture(scope="module")
def serving() -> Iterator[dict[int, int]]:
    """Ports of servers that answer with a status, by status."""
    servers = {}
    for status in (200, 401, 404, 500):
        server = Quiet(("127.0.0.1", 0), Answer)
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers[status] = server
    yield {status: server.server_address[1] for status, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", ("connection refused", "start it")),
        ("http://no-such-host.invalid:8000", ("no host has this name", "correct the name")),
        ("https://127.0.0.1:{200}", ("does not speak TLS", "write http://")),
        ("http://127.0.0.1:{404}", ("127.0.0.1:{404}",)),
        ("http://127.0.0.1:{401}", ("key",)),
        ("http://127.0.0.1:{500}", ("500",)),
    ],
)
@pytest.mark.parametrize("command", ["watch --once", "probe --url"])
def test_each_cause_of_no_answer_has_its_mend(
    fluidgate: Command, serving: dict[int, int], command: str, url: str, words: tuple[str, ...]
) -> None:
    for status, port in serving.items():
        url = url.replace(f"{{{status}}}", str(port))
        words = tuple(word.replace(f"{{{status}}}", str(port)) for word in words)
    outcome = fluidgate(*command.split(), url)
    assert (outcome.status, len(outcome.notices)) == (2, 1), outcome
    assert outcome.notices[0].count(url) == 1
    for word in words:
        assert word in outcome.notices[0]


def test_a_port_that_is_taken(fluidgate: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        outcome = fluidgate("engine", "--port", taken.getsockname()[1])
    assert outcome.status == 2
    assert "give another --port" in outcome.notices[0]


def ran(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fluidgate", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = ran("profiles", "--json", stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == "fluidgate: standard output: No space left on device; make room, or give another place\n"


def test_a_reader_that_leaves_is_no_trouble() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = ran("profiles", "--json", stdout=writing)
    os.close(writing)
    assert done.stderr == ""


def test_tls_that_is_not_trusted() -> None:
    import aiohttp

    from fluidgate.no_answer import no_answer

    error = ssl.SSLCertVerificationError(1, "self-signed certificate")
    key = aiohttp.client_reqrep.ConnectionKey("h", 443, True, True, None, None, None)  # type: ignore[arg-type]
    found = no_answer(aiohttp.ClientConnectorCertificateError(key, error))
    assert "not trusted" in found.reason
    assert "SSL_CERT_FILE" in found.mend


def test_a_gateway_that_does_not_start_has_opened_nothing() -> None:
    from fluidgate.gateway.engines import Connections

    unused = Connections()  # a session would need the event loop that is not there
    asyncio.run(unused.close())


def test_a_reset_connection_is_told_as_a_closed_one() -> None:
    import errno

    import aiohttp

    from fluidgate.no_answer import no_answer

    reset = no_answer(aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"))
    assert reset == no_answer(aiohttp.ServerDisconnectedError())
    assert "write https://" in reset.mend


def test_paths_of_a_gateway_file_from_standard_input() -> None:
    command = [sys.executable, "-m", "fluidgate", "serve", "-", "--check"]
    text = 'scenario = "none.toml"\n[engines]\nkind = "vllm"\nurls = ["http://127.0.0.1:1"]\n'
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == "fluidgate: stdin: scenario: no file 'none.toml'; paths are relative to the working folder\n"
