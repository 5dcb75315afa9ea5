"""Mistakes in a scenario file, each with the start of the line that it must give."""

from __future__ import annotations

from tests.scenario_file.texts import CLUSTER, GPU, NUMBERS, TOTALS, TWO


def with_arrivals(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[arrivals]\n{keys}\n[pricing]")]


def with_phases(levels: str, sojourns: str) -> list[tuple[str, str]]:
    return with_arrivals(f'process = "mmpp"\nlevels = {levels}\nsojourns = {sojourns}')


def with_lengths(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[lengths]\n{keys}\n[pricing]")]


def with_engine(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[engine]\n{keys}\n[pricing]")]


def with_failures(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[failures]\n{keys}\n[pricing]")]


def with_sessions(keys: str) -> list[tuple[str, str]]:
    """Keys of the second class."""
    return [("patience_rate = 0\n", f"patience_rate = 0\n{keys}\n")]


REFUSED = {
    "prefixes without prefix": (
        with_sessions("prefixes = 3"),
        "classes[1] ('chat'): prefixes: only with prefix_tokens; remove this key, or give the tokens",
    ),
    "exponent of a uniform law": (
        with_sessions("prefix_tokens = 100\nprefix_exponent = 2"),
        "classes[1] ('chat'): prefix_exponent: only with prefix_law = \"zipf\"; ",
    ),
    "unknown law of prefixes": (
        with_sessions('prefix_tokens = 100\nprefix_law = "zip"'),
        "classes[1] ('chat'): prefix_law: must be 'uniform' or 'zipf', but is 'zip'; did you mean 'zipf'?",
    ),
    "prefix as long as the prompt": (
        with_sessions("prefix_tokens = 3000"),
        "classes[1] ('chat'): prompt_tokens: the mean over all requests must be at least 3001, one token more than "
        "prefix_tokens of 3000, but is 3000; raise it, or lower prefix_tokens",
    ),
    "turns longer than the mean prompt": (
        with_sessions("prefix_tokens = 100\nturns = 5\nturn_tokens = 350"),
        "classes[1] ('chat'): prompt_tokens: the mean over all requests must be at least 3101, one token more than "
        "prefix_tokens of 100 and 4 earlier turns of 350 new tokens and an answer of 400, but is 3000; raise it, or "
        "lower prefix_tokens or turns or turn_tokens",
    ),
    "no turns": (
        with_sessions("turns = 0.5"),
        "classes[1] ('chat'): turns: must be at least 1, but is 0.5; give the mean number of requests of a session",
    ),
    "half a turn": (
        with_sessions('turns = 2.5\nturns_law = "fixed"\nturn_tokens = 10'),
        "classes[1] ('chat'): turns: must be whole with turns_law = \"fixed\", but is 2.5; ",
    ),
    "turns without tokens": (
        with_sessions("turns = 2"),
        "classes[1] ('chat'): turn_tokens: missing; add 'turn_tokens = 300', the mean number of new prompt tokens",
    ),
    "think without turns": (
        with_sessions("think = 3"),
        "classes[1] ('chat'): think: only with turns above 1; remove this key, or give the mean number of turns",
    ),
    "tool without calls": (
        with_sessions("turns = 2\nturn_tokens = 10\ntool_seconds = 3"),
        "classes[1] ('chat'): tool_seconds: only with tool_share; remove this key, or give the share",
    ),
    "sub-agents of no class": (
        with_sessions("subagents = 1"),
        "classes[1] ('chat'): subagent_class: missing; add the name of the class",
    ),
    "sub-agents of an unknown class": (
        with_sessions('subagents = 1\nsubagent_class = "cat"'),
        "classes[1] ('chat'): subagent_class: 'cat' is no class; give one of 'batch', 'chat'",
    ),
    "sub-agents of sub-agents": (
        with_sessions('subagents = 1\nsubagent_class = "chat"'),
        "classes[1] ('chat'): subagent_class: 'chat' has sub-agents itself; give a class without",
    ),
    "class of no sub-agents": (
        with_sessions('subagent_class = "batch"'),
        "classes[1] ('chat'): subagent_class: only with subagents; remove this key",
    ),
    "more sub-agents than requests": (
        with_sessions('subagents = 3\nsubagent_class = "batch"'),
        "classes[0] ('batch'): arrival_rate: is that of all its requests, and sub-agents alone bring 0.75 of them a "
        "second, but it is 0.5; raise it to that, or set off fewer",
    ),
    "more sub-agents than requests of a cluster": (
        [*with_sessions('subagents = 3\nsubagent_class = "batch"'), CLUSTER, TOTALS],
        "classes[0] ('batch'): total_arrival_rate: is that of all its requests",
    ),
    "prefixes of empirical prompts": (
        [*with_sessions("prefix_tokens = 100"), *with_lengths('prompt = "empirical"\ntraces = ["a.csv"]')],
        "lengths.prompt: empirical prompts have no prefixes and no turns; give another law, or classes without",
    ),
    "unknown batching": (
        with_engine('batching = "token-budgets"'),
        "engine.batching: must be 'single-prefill', 'token-budget', 'prefill-first' or 'last-schedulable', but is "
        "'token-budgets'; did you mean 'token-budget'?",
    ),
    "misspelt engine key": (
        with_engine("kv_token = 100"),
        "engine.kv_token: unknown key; did you mean 'kv_tokens'?",
    ),
    "no KV memory": (with_engine("kv_tokens = 0"), "engine.kv_tokens: must be at least 1, but is 0; give the tokens"),
    "memory below a block": (with_engine("kv_tokens = 8"), "engine.kv_tokens: must hold a block of 16 tokens, but "),
    "block without memory": (with_engine("kv_block = 8"), "engine.kv_block: only with a limited KV memory; remove"),
    "asynchronous prefill first": (
        with_engine('batching = "prefill-first"\nasync_scheduling = true'),
        "engine.async_scheduling: not simulated with prefill-first batching; remove this key, or give token-budget",
    ),
    "caching without memory": (with_engine("kv_caching = true"), "engine.kv_caching: only with a limited"),
    "caching and swap": (
        with_engine('kv_tokens = 64\nkv_caching = true\npreemption = "swap"'),
        "engine.kv_caching: what is swapped out is not read again",
    ),
    "hits without caching": (
        [("patience_rate = 0\n", "patience_rate = 0\nprefix_hit_rate = 0.5\n")],
        "classes[1] ('chat'): prefix_hit_rate: only with prefix caching; remove this key, or",
    ),
    "hits in per cent": (
        [("patience_rate = 0\n", "patience_rate = 0\nprefix_hit_rate = 96\n")],
        "classes[1] ('chat'): prefix_hit_rate: must be less than 1, but is 96; give the share of its prompt tokens",
    ),
    "reservation without memory": (with_engine("kv_reservation = 8"), "engine.kv_reservation: only with a limited"),
    "unknown preemption": (
        with_engine('kv_tokens = 99\npreemption = "drop"'),
        "engine.preemption: must be 'recompute' or 'swap', but is 'drop'; give what becomes of the KV",
    ),
    "seconds without swapping": (
        with_engine("kv_tokens = 99\nswap_seconds = 1e-6"),
        'engine.swap_seconds: only with preemption = "swap"; ',
    ),
    "budget below the batch": (
        with_engine('batching = "token-budget"\nmax_batched_tokens = 15'),
        "engine.max_batched_tokens: must be at least the batch size (16), but is 15; raise it, or lower gpu.batch_size",
    ),
    "budget of one prefill": (
        with_engine('batching = "single-prefill"\nmax_batched_tokens = 512'),
        "engine.max_batched_tokens: not with single-prefill batching, which reads gpu.chunk_size tokens; ",
    ),
    "no whole groups of ranks": (
        [("[pricing]", "[cluster]\ngpus = 3\n[engine]\ndata_parallel = 2\n[pricing]"), TOTALS],
        "engine.data_parallel: the 3 GPUs of [cluster] are no whole number of groups of 2 ranks; give a multiple of 2",
    ),
    "no bandwidth": (
        with_engine("transfer_bandwidth = 0"),
        "engine.transfer_bandwidth: must be greater than 0, but is 0; give the KV tokens per second",
    ),
    "negative latency": (
        with_engine("transfer_latency = -1"),
        "engine.transfer_latency: must be at least 0, but is -1; give the seconds",
    ),
    "target of 0": (
        [("[pricing]", "[targets]\nttft = 0\n[pricing]")],
        "targets.ttft: must be greater than 0, but is 0; give the largest time to first token",
    ),
    "no time of repair": (
        with_failures("mtbf = 1000"),
        "failures.mttr: missing beside mtbf; add 'mttr = 1800.0', in s, or remove mtbf",
    ),
    "nothing fails": (
        with_failures("units = 2"),
        "failures.mtbf: missing, and no failure is at a given time; add mtbf and mttr, or [[failures.at]]",
    ),
    "failure without a GPU": (
        with_failures("at = [{ time = 3.0 }]"),
        "failures.at[0]: gpu: missing; add 'gpu = 0', the GPU that fails",
    ),
    "schedule out of order": (
        [("[pricing]", "[[schedule]]\ntime = 5\ngpus = 1\n[[schedule]]\ntime = 5\ngpus = 2\n[pricing]")],
        "schedule[1]: time: must be after 5 s, that of the step before; put them in order of time",
    ),
    "misspelt target": (
        [("patience_rate = 0\n", "patience_rate = 0\nttft_targets = 2\n")],
        "classes[1] ('chat'): ttft_targets: unknown key; did you mean 'ttft_target'?",
    ),
    "unknown process": (
        with_arrivals('process = "gama"\ncv = 3'),
        "arrivals.process: must be 'poisson', 'gamma', 'mmpp', 'daily' or 'closed', but is 'gama'; did you mean",
    ),
    "process of a wrong type": (
        with_arrivals("process = 3"),
        "arrivals.process: must be 'poisson', 'gamma', 'mmpp', 'daily' or 'closed', but is 3",
    ),
    "cv of Poisson gaps": (
        with_arrivals("cv = 3"),
        'arrivals.cv: only with process = "gamma" (Poisson gaps have cv 1); ',
    ),
    "gamma without cv": (with_arrivals('process = "gamma"'), "arrivals.cv: missing; add 'cv = 3.0', "),
    "cv of 0": (with_arrivals('process = "gamma"\ncv = 0'), "arrivals.cv: must be at least 0.001, but is 0; give "),
    "cv too large": (
        with_arrivals('process = "gamma"\ncv = 101'),
        "arrivals.cv: must be at most 100, but is 101; ",
    ),
    "cv in quotes": (with_arrivals('process = "gamma"\ncv = "3"'), "arrivals.cv: must be a number, but is '3'; give "),
    "misspelt cv": (with_arrivals('process = "gamma"\ncvs = 2'), "arrivals.cvs: unknown key; did you mean 'cv'?"),
    "phases of Poisson arrivals": (with_arrivals("levels = [1, 2]"), 'arrivals.levels: only with process = "mmpp"; '),
    "hours of Poisson arrivals": (with_arrivals("weights = [1]"), 'arrivals.weights: only with process = "daily"; '),
    "one phase": (with_phases("[1]", "[1, 2]"), "arrivals.levels: must have at least 2, but has 1; give "),
    "phases without sojourns": (
        with_arrivals('process = "mmpp"\nlevels = [1, 2]'),
        "arrivals.sojourns: missing; add 'sojourns = [50, 5]', ",
    ),
    "a sojourn too many": (with_phases("[1, 2]", "[1, 2, 3]"), "arrivals.sojourns: 2 levels, but 3 sojourns; give "),
    "phases without arrivals": (with_phases("[0, 0.0]", "[1, 2]"), "arrivals.levels: all 0; give "),
    "negative level": (with_phases("[1, -1]", "[1, 2]"), "arrivals.levels[1]: must be at least 0, but is -1; "),
    "no sojourn": (with_phases("[1, 2]", "[0, 2]"), "arrivals.sojourns[0]: must be at least 0.01, but is 0; "),
    "day without weights": (
        with_arrivals('process = "daily"'),
        "arrivals.weights: missing; add 'weights = [1, ",
    ),
    "day without arrivals": (with_arrivals('process = "daily"\nweights = [0]'), "arrivals.weights: all 0; give "),
    "day without end": (
        with_arrivals('process = "daily"\nweights = [1]\nperiod = 0'),
        "arrivals.period: must be at least 0.01, but is 0; ",
    ),
    "unknown length law": (
        with_lengths('output = "log-normal"'),
        "lengths.output: must be 'exponential', 'fixed', 'lognormal' or 'empirical', but is 'log-normal'; did you mean",
    ),
    "lognormal without cv": (
        with_lengths('prompt = "lognormal"'),
        "lengths.prompt_cv: missing; add 'prompt_cv = 1.5', the CV of the prompt lengths",
    ),
    "cv of another law": (with_lengths("output_cv = 2"), 'lengths.output_cv: only with output = "lognormal"; '),
    "traces without need": (with_lengths('traces = ["a.csv"]'), "lengths.traces: only with prompt or output = "),
    "trace for traces": (
        with_lengths('output = "empirical"\ntraces = "a.csv"'),
        "lengths.traces: must be an array, but is 'a.csv'; give the paths of trace files",
    ),
    "misspelt arrivals": ([("[pricing]", "[arrival]\n[pricing]")], "arrival: unknown key; did you mean 'arrivals'?"),
    "arrivals as an array": (
        [("[pricing]", "[[arrivals]]\n[pricing]")],
        "arrivals: must be a table, but is an array",
    ),
    "out of range": (
        [("6.2e-5", "-1")],
        "gpu.beta: must be greater than 0, but is -1; give the seconds that a prompt token adds to a mixed iteration",
    ),
    "misspelt": ([("batch_size", "batchsize")], "gpu.batchsize: unknown key; did you mean 'batch_size'?"),
    "misspelt table": ([("[pricing]", "[prices]")], "prices: unknown key; did you mean 'pricing'?"),
    "unknown key": (
        [("gamma = 45.45", "gamma = 45.45\nzzz = 1")],
        "gpu.zzz: unknown key; remove it (the keys here: batch_size, chunk_size, alpha, beta, gamma)",
    ),
    "unknown top key": ([("[gpu]", "zzz = 1\n[gpu]")], "zzz: unknown key; remove it"),
    "quoted key": ([("[gpu]", '"a b\\n" = 1\n[gpu]')], "'a b\\n': unknown key; remove it"),
    "missing": (
        [("prompt_tokens = 3000\n", "")],
        "classes[1] ('chat'): prompt_tokens: missing; add 'prompt_tokens = 300', the mean prompt length P, tokens",
    ),
    "missing name": ([('name = "chat"\n', "")], "classes[1]: name: missing; add 'name = \"chat\"', "),
    "missing table": ([(GPU, "")], "gpu: missing; add the table [gpu]"),
    "no iteration time": ([(NUMBERS, "")], "gpu.alpha: missing; add 'alpha = 0.0174', "),
    "string for a number": ([("45.45", '"45"')], "gpu.gamma: must be a number, but is '45'; give "),
    "bool for a number": ([("45.45", "true")], "gpu.gamma: must be a number, but is true; give "),
    "date for a number": ([("45.45", "1979-05-27")], "gpu.gamma: must be a number, but is 1979-05-27; "),
    "array for a number": ([("45.45", "[1]")], "gpu.gamma: must be a number, but is an array; "),
    "huge number": (
        [("45.45", "0x" + "f" * 4000)],
        "gpu.gamma: must be a number, but is a very large number",
    ),
    "digits without end": ([("45.45", "1" * 5000)], "not TOML: Exceeds the limit"),
    "bool for a count": ([("16", "true")], "gpu.batch_size: must be a whole number, but is true; give "),
    "fraction for a count": ([("16", "1.5")], "gpu.batch_size: must be a whole number, but is 1.5; give "),
    "count too small": ([("256", "0")], "gpu.chunk_size: must be at least 1, but is 0; give "),
    "count too large": ([("256", "4294967296")], "gpu.chunk_size: must be at most 2147483647, but is "),
    "nan": ([("45.45", "nan")], "gpu.gamma: must be a finite number, but is nan; give "),
    "inf": ([("0.0174", "inf")], "gpu.alpha: must be a finite number, but is inf; give "),
    "-inf": ([("prompt = 0.1", "prompt = -inf")], "pricing.prompt: must be a finite number, but is -inf; "),
    "negative price": ([("0.2", "-0.2")], "pricing.output: must be at least 0, but is -0.2; give "),
    "unknown scheme": (
        [('"bundled"', '"bundle"')],
        "pricing.scheme: must be 'bundled' or 'separate', but is 'bundle'; did you mean 'bundled'?",
    ),
    "scheme of a wrong type": (
        [('"bundled"', "1")],
        "pricing.scheme: must be 'bundled' or 'separate', but is 1",
    ),
    "no mixed iteration": (
        [("0.0174", "-1")],
        "gpu.alpha: alpha + beta * chunk_size must be greater than 0 s and finite, but is -0.984128 s; ",
    ),
    "same names": (
        [('"chat"', '"batch"')],
        "classes[1] ('batch'): name: also the name of classes[0]; give each class its own name",
    ),
    "empty name": ([('"chat"', '""')], "classes[1]: name: must not be empty; give "),
    "number for a name": ([('"two-class"', "2")], "name: must be a text in quotes, but is 2; give "),
    "table for an array": (
        [('[[classes]]\nname = "batch"', '[classes]\nname = "batch"'), (TWO[TWO.rindex("[[") :], "")],
        "classes: must be an array, but is a table; give the classes of requests, each a table [[classes]]",
    ),
    "number for a table": (
        [(GPU, ""), ('name = "two', 'gpu = 3\nname = "two')],
        "gpu: must be a table, but is 3; give the table [gpu]",
    ),
    "other schema": (
        [('name = "two', 'schema = 2\nname = "two')],
        "schema: is 2, but this fluidgate reads schema 1; write 'schema = 1'",
    ),
    "profile and numbers": (
        [("alpha", 'profile = "a100-40gb/qwen-8b"\nalpha')],
        "gpu.alpha: not together with 'profile'; remove 'profile', or alpha, beta and gamma (and 2 more to mend)",
    ),
    "unknown profile": (
        [(NUMBERS, 'profile = "a100-40gb/qwen8b"\n')],
        "gpu.profile: unknown profile 'a100-40gb/qwen8b'; did you mean 'a100-40gb/qwen-8b'? "
        "(list them with `list_profiles()`, or give the path of a .toml file)",
    ),
    "no profile file": ([(NUMBERS, 'profile = "no.toml"\n')], "gpu.profile: no.toml: no such file; give "),
    "rate per GPU in a cluster": (
        [CLUSTER],
        "classes[0] ('batch'): arrival_rate: not together with [cluster]; "
        "remove this key and give total_arrival_rate, or remove [cluster] (and 1 more to mend)",
    ),
    "total rate without a cluster": (
        [TOTALS],
        "classes[0] ('batch'): total_arrival_rate: only together with [cluster]; add [cluster] with gpus, "
        "or remove this key and give arrival_rate, requests/s per GPU (and 1 more to mend)",
    ),
    "both rates": (
        [("arrival_rate = 0.25", "arrival_rate = 0.25\ntotal_arrival_rate = 1")],
        "classes[1] ('chat'): total_arrival_rate: only together with [cluster]; ",
    ),
    "no GPUs in the cluster": (
        [CLUSTER, TOTALS, ("gpus = 3", "")],
        "cluster.gpus: missing; add 'gpus = 60', the GPUs that share total_arrival_rate",
    ),
    "two indicators": (
        [("[pricing]", "[indicators]\nmax_tpot = 'x'\ntpot_weight = -1\n[pricing]")],
        "indicators.max_tpot: must be a number, but is 'x'; "
        "give the largest average time per output token, eta_3, s (and 1 more to mend)",
    ),
    "three mistakes": (
        [("6.2e-5", "-1"), ("45.45", "0"), ("3000", "0")],
        "gpu.beta: must be greater than 0, but is -1; "
        "give the seconds that a prompt token adds to a mixed iteration (and 2 more to mend)",
    ),
    "lengths beyond floats": (
        [("= 3000", "= 1e-320")],
        "classes[1] ('chat'): its service rates or prices are no longer numbers; ",
    ),
    "rate beyond floats": (
        [CLUSTER, TOTALS, ("= 0.25", "= 5e-324")],
        "classes[1] ('chat'): total_arrival_rate: too small to share among 3 GPUs; ",
    ),
    "syntax": (
        [("[gpu]", "[gpu")],
        "line 3, column 5: not TOML: Expected ']' at the end of a table declaration",
    ),
    "syntax at the end": ([(TWO, TWO + "x")], "line 28: not TOML: "),
    "key twice": (
        [("gamma", "alpha")],
        "line 8, column 14: this key is given twice; remove one of the two",
    ),
    "nested without end": ([("[gpu]", "x = " + "[" * 5000)], "not TOML: too deeply nested; "),
}


BEYOND_SCHEMA = {
    *("no time of repair", "nothing fails", "schedule out of order"),
    "no whole groups of ranks",
    *("memory below a block", "block without memory", "reservation without memory", "seconds without swapping"),
    *("caching without memory", "caching and swap", "hits without caching", "asynchronous prefill first"),
    *("budget below the batch", "budget of one prefill"),
    *("nan", "inf", "-inf", "no mixed iteration", "same names", "unknown profile", "no profile file"),
    *("prefixes without prefix", "exponent of a uniform law", "prefix as long as the prompt"),
    *("turns longer than the mean prompt", "half a turn", "turns without tokens", "think without turns"),
    *("tool without calls", "sub-agents of no class", "sub-agents of an unknown class", "sub-agents of sub-agents"),
    *("class of no sub-agents", "more sub-agents than requests", "more sub-agents than requests of a cluster"),
    "prefixes of empirical prompts",
    *("a sojourn too many", "phases without arrivals", "day without arrivals"),
    *("lognormal without cv", "cv of another law", "traces without need"),
    *("lengths beyond floats", "rate beyond floats", "syntax", "syntax at the end", "key twice"),
    *("nested without end", "huge number", "digits without end"),
}
"""Those that the JSON Schema cannot say."""
