"""Calls that are wrong, and how what is said of them begins.

`scenario` is `examples/two-class.toml`, `tiny` is `examples/tiny.toml`, `trace` the path of a trace, `found` a plan.
"""

WRONG = {
    'plan(scenario, scheme="seperate")': (
        "scheme: must be 'bundled' or 'separate', but is 'seperate'; did you mean 'separate'?"
    ),
    'plan("examples/azur.toml")': "examples/azur.toml: no such file; did you mean 'azure.toml'?",
    "plan(3)": "scenario: must be a Scenario, a text or a path, but is 3",
    "plan(None)": "scenario: must be a Scenario, a text or a path, but is None",
    "plan(scenario, gpu=20)": "plan() has no argument 'gpu'; did you mean 'gpus'?",
    "plan(scenario, gpus=0)": "gpus: must be at least 1 and at most 2147483647, but is 0; give another number",
    "plan(scenario, gpus=-3)": "gpus: must be at least 1 and at most 2147483647, but is -3; give another number",
    "plan(scenario, gpus=2.5)": "gpus: must be a whole number, but is 2.5",
    'plan(scenario, gpus="20")': "gpus: must be a whole number, but is '20'",
    "plan(scenario, gpus=True)": "gpus: must be a whole number, but is True",
    'plan(scenario, batching="token-budgets")': (
        "batching: must be 'single-prefill', 'token-budget', 'prefill-first' or 'last-schedulable', but"
    ),
    'plan(scenario, with_indicators="no")': "with_indicators: must be True or False, but is 'no'",
    "plan()": "plan(): missing a required argument: 'scenario'",
    "plan(scenario, 20)": "plan(): too many positional arguments; give all but scenario by name",
    "scenario.replace(clases=())": "Scenario: clases: no such field; did you mean 'classes'?",
    "scenario.replace(classes=())": "Scenario: classes: must have at least 1, but has 0",
    "scenario.replace(gpu=3)": "Scenario: gpu: must be a Gpu, but is 3",
    "scenario.replace(classes=[scenario.classes[0], scenario.classes[0]])": (
        "Scenario: classes: two classes are named 'decode-heavy'; give each its own name"
    ),
    "scenario.for_gpus(0)": "gpus: must be at least 1, but is 0",
    "Scenario(batchsize=16)": (
        "Scenario: batchsize: no such field; did you mean batch_size of its gpu? (and 3 more to mend)"
    ),
    'Scenario(name="x", gpu=scenario.gpu)': "Scenario: classes: missing",
    'Scenario(name="", gpu=scenario.gpu, classes=scenario.classes)': "Scenario: name: must not be empty",
    'Scenario.load("nothing.toml")': "nothing.toml: no such file; give the path of a scenario file",
    'Scenario.load("examples")': "examples: a folder; give the path of a scenario file",
    "Scenario.load(5)": "path: must be a text or a path, but is 5",
    "Gpu(batchsize=16, chunk_size=256, iteration=scenario.gpu.iteration)": (
        "Gpu: batchsize: no such field; did you mean 'batch_size'? (and 1 more to mend)"
    ),
    "Gpu(batch_size=-16, chunk_size=256, iteration=scenario.gpu.iteration)": (
        "Gpu: batch_size: must be at least 1, but is -16 (most requests in a batch, B)"
    ),
    'Gpu(batch_size="many", chunk_size=256, iteration=scenario.gpu.iteration)': (
        "Gpu: batch_size: must be a whole number, but is 'many' (most requests in a batch, B)"
    ),
    "Gpu(batch_size=16, chunk_size=2.5, iteration=scenario.gpu.iteration)": (
        "Gpu: chunk_size: must be a whole number, but is 2.5 (prompt tokens read in one iteration, C)"
    ),
    "Gpu(batch_size=16, chunk_size=256)": "Gpu: iteration: missing",
    "Gpu(batch_size=16, chunk_size=256, iteration=5)": "Gpu: iteration: must be an IterationTime, but is 5",
    'IterationTime(alpha=float("nan"), beta=1e-5, gamma=40.0)': (
        "IterationTime: alpha: must be a finite number, but is nan (intercept of the mixed iteration"
    ),
    "IterationTime(alpha=0.01, beta=1e-5)": (
        "IterationTime: gamma is missing; give it, or delta or epsilon, from which it follows"
    ),
    'RequestClass(name="a", prompt_tokens=-5, output_tokens=3, arrival_rate=1)': (
        "RequestClass: prompt_tokens: must be greater than 0, but is -5 (mean prompt length P, tokens)"
    ),
    'RequestClass(name="a", prompt_tokens=5, output_tokens=3, arrival_rate=1, patience_rate=0, patience=3)': (
        "RequestClass: patience: no such field; did you mean 'patience_rate'?"
    ),
    'Pricing(scheme="seperate", prompt=1, output=1)': (
        "Pricing: scheme: must be 'bundled' or 'separate', but is 'seperate'; did you mean 'separate'?"
    ),
    "Pricing(prompt=1, output=1)": (
        "Pricing: scheme: missing ('bundled' (all at the last token) or 'separate' (prompt and output"
    ),
    "Indicators(max_tpots=0.02)": "Indicators: max_tpots: no such field; did you mean 'max_tpot'?",
    'Indicators(max_tpot="fast")': (
        "Indicators: max_tpot: must be a number, but is 'fast' (largest average time per output token,"
    ),
    "scenario.gpu.changed(batch_size=0)": "Gpu: batch_size: must be at least 1, but is 0 (most requests in a batch, B)",
    "scenario.gpu.changed(batchsize=3)": "Gpu: batchsize: no such field; did you mean 'batch_size'?",
    'setattr(scenario, "name", "x")': "Scenario: name: a Scenario stays as it is; changed(name=...) gives another",
    'simulate(scenario, "gate-and-rout", gpus=5)': (
        "unknown policy 'gate-and-rout'; `list_policies()` lists them all; did you mean 'gate-and-route'?"
    ),
    'simulate(scenario, "gate-and-route")': (
        "gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs"
    ),
    'simulate(scenario, "gate-and-route", gpus=-1)': (
        "gpus: must be at least 1 and at most 2147483647, but is -1; give another number"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, horizon=-3.0)': "horizon: must be a time above 0 s, but is -3",
    'simulate(scenario, "gate-and-route", gpus=5, horizon="long")': "horizon: must be a number, but is 'long'",
    'simulate(scenario, "gate-and-route", gpus=5, horizon=float("nan"))': (
        "horizon: must be a time above 0 s, but is nan"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, warmup=20000.0)': (
        "warmup: must be at least 0 and below the horizon (10000 s), but is 20000"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, replications=0)': ("replications: must be at least 1, but is 0"),
    'simulate(scenario, "gate-and-route", gpus=5, replicatons=3)': (
        "simulate() has no argument 'replicatons'; did you mean 'replications'?"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, seed=-1)': "seed: must be at least 0, but is -1",
    'simulate(scenario, "gate-and-route", gpus=5, seed=1.5)': "seed: must be a whole number, but is 1.5",
    'simulate(scenario, "gate-and-route", gpus=5, fidelity="iterations")': (
        "fidelity: must be 'markov' or 'iteration', but is 'iterations'; did you mean 'iteration'?"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, think=3.0)': "think: only in a closed loop; give users too",
    'simulate(scenario, "gate-and-route", gpus=5, users=0)': "users: must be at least 1, but is 0",
    'simulate(scenario, "gate-and-route", gpus=5, users=3, think=-1.0)': (
        "think: must be a time of at least 0 s, but is -1"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, users=3, think_law="fast")': (
        "think_law: must be 'fixed' or 'exponential', but is 'fast'"
    ),
    'simulate(scenario, "gate-and-route", gpus=5, workers=0)': "workers: must be at least 1, but is 0",
    'simulate(scenario, "gate-and-route", gpus=5, samples=-1)': "samples: must be at least 0, but is -1",
    'simulate(scenario, "gate-and-route", gpus=5, executor="ray")': "executor: must be an Executor, but is 'ray'",
    'simulate(scenario, "gate-and-route", gpus=5, progress="yes")': (
        "progress: must be a function or True or False, but is 'yes'"
    ),
    'simulate(scenario, ["gate-and-route"], gpus=5)': (
        "policy: must be a text, a path or a policy, but is a list, ['gate-and-route']"
    ),
    "simulate(scenario, 7, gpus=5)": "policy: must be a text, a path or a policy, but is 7",
    "simulate(scenario, None, gpus=5)": "policy: must be a text, a path or a policy, but is None",
    'simulate(scenario, "vllm-round-robin", gpus=5, fidelity="markov")': (
        "policy 'vllm-round-robin' batches in its own way, which only the fidelity of iterations has;"
    ),
    'simulate(scenario, "gate-and-route+replan", gpus=5, fidelity="markov")': (
        "policy 'gate-and-route+replan' follows the load, which only the fidelity of iterations does;"
    ),
    'simulate(scenario, "nothing.toml", gpus=5)': "nothing.toml: no such file; give the path of a policy file",
    'simulate(scenario, "examples/own_policy.py", gpus=5)': (
        "examples/own_policy.py: which of its policies is not said; give examples/own_policy.py:NAME (it"
    ),
    'simulate(scenario, "examples/own_policy.py:NONE", gpus=5)': (
        "examples/own_policy.py: no policy 'NONE'; did you mean 'MINE'? (it has MINE)"
    ),
    "compare(scenario, [], gpus=5)": "policies: none is named; name at least one, e.g. gate-and-route,fi-wsp",
    'compare(scenario, ["fi-wsp", "fi-wsp"], gpus=5)': "policies: 'fi-wsp' is named twice; name each policy once",
    'compare(scenario, ["fi-wsp", "gi-wps"], gpus=5)': (
        "unknown policy 'gi-wps'; `list_policies()` lists them all; did you mean 'gi-wsp'?"
    ),
    'compare(scenario, "fi-wsp,gi-wps", gpus=5)': (
        "unknown policy 'gi-wps'; `list_policies()` lists them all; did you mean 'gi-wsp'?"
    ),
    'compare(scenario, ["fi-wsp"], policies=["x"], gpus=5)': "compare(): multiple values for argument 'policies'",
    'compare(scenario, ["fi-wsp", 3], gpus=5)': (
        "policies: must be a text, a path, a policy or a list of texts, paths or policies, but is a"
    ),
    'compare(scenario, policy="fi-wsp", gpus=5)': "compare() has no argument 'policy'; did you mean 'policies'?",
    'replay(scenario, "nothing.csv", "fi-wsp", gpus=5)': "nothing.csv: no such file; give the path of a trace file",
    'replay(scenario, [], ["fi-wsp"], gpus=5)': "no trace files; give at least one",
    "replay(scenario, trace, [], gpus=5)": (
        "policies: none is named; name at least one, e.g. gate-and-route,vllm-round-robin"
    ),
    'replay(scenario, trace, "fi-wsp")': "gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs",
    'replay(scenario, trace, "fi-wsp", gpus=5, times="twice")': (
        "times: must be 'once', 'repeat' or 'resample', but is 'twice'"
    ),
    'replay(scenario, trace, "fi-wsp", gpus=5, rate_scale=0.0)': "rate_scale: must be above 0 and finite, but is 0",
    'replay(scenario, trace, "fi-wsp", gpus=5, match_load=True, rate_scale=2.0)': (
        "match_load: not together with rate_scale; give one of them"
    ),
    'replay(scenario, trace, "fi-wsp", gpus=5, unit="min")': "unit: must be 's', 'ms', 'us' or 'ns', but is 'min'",
    'replay(scenario, trace, "fi-wsp", gpus=5, replications=3)': (
        "replications: a trace played as it is gives the same requests each time; give times='resample'"
    ),
    'replay(scenario, trace, "fi-wsp", gpus=5, requests=0)': "requests: must be at least 1, but is 0",
    'replay(scenario, "nobody=" + trace, "fi-wsp", gpus=5)': (
        "nobody=examples/own-trace.jsonl: the scenario has no class 'nobody'; name one of them"
    ),
    "size(scenario)": "scenario 'two-class': its rates are per GPU, so that any number of GPUs serves them alike; add",
    'size("examples/chat-fleet.toml", targets=["ttft_p98=1.0"])': (
        "targets: must be KEY=VALUE such as ttft_p99=1.0, but is 'ttft_p98=1.0'; did you mean 'ttft_p99'?"
    ),
    'size("examples/chat-fleet.toml", targets={"ttft_p99": -1.0})': (
        "targets: ttft_p99 must be a time above 0 s, but is '-1.0'"
    ),
    'size("examples/chat-fleet.toml", targets="ttft_p99")': (
        "targets: must be a list of texts or a dictionary, but is 'ttft_p99'"
    ),
    'size("examples/chat-fleet.toml", batch_sizes=[-8])': (
        "batch_sizes: must be at least 1 and at most 2147483647, but is -8"
    ),
    'size("examples/chat-fleet.toml", batch_sizes=64)': "batch_sizes: must be a list of whole numbers, but is 64",
    'size("examples/chat-fleet.toml", batchsizes=[64])': (
        "size() has no argument 'batchsizes'; did you mean 'batch_sizes'?"
    ),
    'size("examples/chat-fleet.toml", profiles="h100/llama-3.1-9b")': (
        "unknown profile 'h100/llama-3.1-9b'; did you mean 'h100/llama-3.1-8b'? (list them with"
    ),
    'size("examples/chat-fleet.toml", policies="index-and-pol")': (
        "unknown policy 'index-and-pol'; `list_policies()` lists them all; did you mean 'index-and-pool'?"
    ),
    'size("examples/chat-fleet.toml", spare=-1)': "spare: must be at least 0, but is -1",
    'size("examples/chat-fleet.toml", gpu_hour=-2.0)': "gpu_hour: must be a price above 0, but is -2",
    'size("examples/chat-fleet.toml", max_gpus=0)': "max_gpus: must be at least 1, but is 0",
    'size("examples/chat-fleet.toml", trace="x.csv")': "size() has no argument 'trace'; did you mean 'traces'?",
    'tune(scenario, "gate-and-route")': "gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs",
    'tune(scenario, "fi-wsp", gpus=5)': (
        "policy 'fi-wsp' has no parameters to tune; choose one of gate-and-route, capped-gate-and-route,"
    ),
    'tune(scenario, "gate-and-route", gpus=5, budget=10.0)': (
        "budget: must be a number of events from 7.2e+06 for 5 GPUs of 'two-class', but is 10; give more"
    ),
    'tune(scenario, "gate-and-route", gpus=5, budgets=1e8)': "tune() has no argument 'budgets'; did you mean 'budget'?",
    "optimum(tiny, gpus=0)": "gpus: must be at least 1 and at most 2147483647, but is 0; give another number",
    "optimum(tiny)": "gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs",
    "optimum(tiny, gpus=1, queue_limit=0)": "queue_limit: must be at least 1, but is 0",
    "optimum(scenario, gpus=50)": (
        "50 GPUs of 16 slots with 2 classes have 1.3e+74 states, above the limit of 2,000,000; this"
    ),
    "optimum(tiny, gpus=1, accuracy=2.0)": "accuracy: must be between 0 and 1, but is 2",
    "bound(scenario)": "gpus: missing, and the scenario names no [cluster] gpus; say how many GPUs",
    'bound(scenario, gpus=2, scheme="sep")': (
        "scheme: must be 'bundled' or 'separate', but is 'sep'; did you mean 'separate'?"
    ),
    "bound(scenario, gpus=2, max_stages=-1)": "max_stages: must be at least 0, but is -1",
    'measured_bound(found, ["fi-wsp"])': "found: must be a Bound, but is a Plan",
    'frontier(scenario, "max_tpt")': "indicator: no limit is named 'max_tpt'; did you mean 'max_tpot'?",
    'frontier(scenario, "max_tpot", points=1)': "points: must be from 2 to 10000, but is 1; give another number",
    'frontier(scenario, "max_tpot", low=-1.0)': "low: must be at least 0 and finite, but is -1; give another limit",
    'frontier(scenario, "max_tpot", low=0.03, high=0.02)': "high: 0.02 is not above low=0.03; give a larger limit",
    'frontier(scenario, "max_tpot", gpus=0)': (
        "gpus: must be at least 1 and at most 2147483647, but is 0; give another number"
    ),
    'sweep(scenario, "gpu.batchsize", [1, 2])': (
        "gpu.batchsize: no such field of a scenario; did you mean 'gpu.batch_size'?"
    ),
    'sweep(scenario, "gpu.batch_size", [])': "gpu.batch_size: no values; give at least one",
    'sweep(scenario, "gpu.batch_size", [0])': (
        "gpu.batch_size: must be at least 1, but is 0; give another (most requests in a batch, B)"
    ),
    'sweep(scenario, "gpu.batch_size", 3)': "values: must be a list, but is 3",
    'heat_map(scenario, "gpu.batch_size", [1], "gpu.batch_size", [2])': (
        "gpu.batch_size and gpu.batch_size name the same field; give two"
    ),
    "predict(scenario, 0)": "engines: must be at least 1 and at most 2147483647, but is 0; give another number",
    'predict(scenario, 5, policy="gate-and-rout")': (
        "unknown policy 'gate-and-rout'; `list_policies()` lists them all; did you mean 'gate-and-route'?"
    ),
    'predict(scenario, 5, batching="token-budgets")': (
        "batching: must be 'single-prefill', 'token-budget', 'prefill-first' or 'last-schedulable', but"
    ),
    'predict(scenario, 5).time("tttf")': (
        "measure: must be 'ttft', 'tpot' or 'latency', but is 'tttf'; did you mean 'ttft'?"
    ),
    'predict(scenario, 5).time("ttft", "decode")': "cls: no class is named 'decode'; did you mean 'decode-heavy'?",
    "predict(scenario, 5).goodput(2)": "cls: no number 2 among 2 classes, which count from 0",
    "found.plot(3)": "path: must be a text or a path, but is 3",
    'found.plot(file="x.svg")': "plot() has no argument 'file'; it takes path",
    'Scenario("examples/two-class.toml")': (
        "Scenario: fields go by name: Scenario(name=..., gpu=..., classes=...), and Scenario.load(...) reads a file"
    ),
    "Pricing(1.0, 2.0)": "Pricing: fields go by name: Pricing(scheme=..., prompt=..., output=...)",
    "simulate(found, 'fi-wsp')": ("scenario: must be a Scenario, a text or a path, but is a Plan; give its scenario"),
    "scenario.gpu.replace(iteration=find_profile('h100/llama-3.1-8b'))": (
        "Gpu: iteration: must be an IterationTime, but is a Profile, <Profile h100/llama-3.1-8b>; give its iteration"
    ),
    "scenario.classes[0].replace(arival_rate=1.0)": (
        "RequestClass: arival_rate: no such field; did you mean 'arrival_rate'?"
    ),
    "read_trace(trace)": (
        "examples/own-trace.jsonl: line 1: unknown keys 'at.sent,usage.in,usage.out'; the formats are"
    ),
    "predict(scenario)": "engines: missing, and the scenario names no [cluster] gpus; say how many",
    'yardstick(optimum(tiny, gpus=1), "fi-wps", horizon=50.0)': (
        "unknown policy 'fi-wps'; `list_policies()` lists them all; did you mean 'fi-wsp'?"
    ),
    'compare(tiny, "fi-wsp,gi-wsp", gpus=1, horizon=50.0)["fi-wps"]': (
        "no policy is named 'fi-wps' here; did you mean 'fi-wsp'?"
    ),
    'compare(tiny, "fi-wsp", gpus=1, horizon=50.0)["fi-wsp"]["decode"]': (
        "no class is named 'decode' here; did you mean 'decode-heavy'?"
    ),
    "scenario.write(3)": "path: must be a text or a path, but is 3",
    'scenario.for_gpus("4")': "gpus: must be a whole number, but is '4'",
    "Planner().solve(3)": "scenario: must be a Scenario, a text or a path, but is 3",
    'FluidState.of_plan("two")': "plan: must be a Plan, but is 'two'",
    'find_policy("vllm-round-robin")': "policy 'vllm-round-robin' batches in its own way, which only the fidelity of",
    'find_policy("gate-and-route").with_functions("mine", gat=len)': (
        "with_functions() has no argument 'gat'; did you mean 'gate'?"
    ),
    'find_policy("gate-and-route").with_functions("mine", gate=3)': "gate: must be a function, but is 3",
    'find_policy("gate-and-route").with_parameters(margin=0.3)': (
        "with_parameters() has no argument 'margin'; it takes values"
    ),
    'find_policy("fi-wps")': "unknown policy 'fi-wps'; `list_policies()` lists them all; did you mean 'fi-wsp'?",
    "find_policy(5)": "name: must be a text or a path, but is 5",
    'find_policy("index-and-pool").with_parameters({"margn": 1.0})': (
        "policy 'index-and-pool': parameters.margn: the policy has no such parameter; remove it (it has:"
    ),
    'find_policy("index-and-pool").with_parameters({"reservation": 99.0})': (
        "policy 'index-and-pool': parameters.reservation: must be a number from -2 to 2, but is 99; give"
    ),
    'find_policy("index-and-pool").with_parameters({"reservation": "much"})': (
        "policy 'index-and-pool': parameters.reservation: must be a number from -2 to 2, but is 'much';"
    ),
    'load_policy("nothing.toml")': "nothing.toml: no such file; give the path of a policy file",
    'calibrate("nothing.csv")': "nothing.csv: no such file; give the path of a",
    'calibrate("examples/measurements.csv", minchunk=3)': (
        "calibrate() has no argument 'minchunk'; did you mean 'min_chunk'?"
    ),
    'calibrate("examples/measurements.csv", gpus="many")': "gpus: must be a whole number, but is 'many'",
    "calibrate_batches(3)": "measurements: must be a Measurements, a text or a path, but is 3",
    'calibrate_batches("examples/measurements.csv", epsilon="much")': (
        "calibrate_batches() has no argument 'epsilon'; it takes"
    ),
    'calibrate_from_log("nothing.jsonl", scenario)': "nothing.jsonl: no such file; give the path of a trace file",
    "calibrate_from_log(trace, 3)": "scenario: must be a Scenario, a text or a path, but is 3",
    'calibrate_from_log("examples/chat-and-code.csv", scenario)': "chat-and-code.csv: no times of tokens; give a log",
    'read_measurements("examples/measurements.csv", units="ms")': (
        "read_measurements() has no argument 'units'; did you mean 'unit'?"
    ),
    'read_measurements("examples/measurements.csv", unit="min")': (
        "unit: must be 's', 'ms', 'us' or 'ns', but is 'min'"
    ),
    'load_profile("nothing.toml")': "nothing.toml: no such file; give the path of a profile file",
    'write_profile("h100", "x.toml")': "profile: must be a Profile, but is 'h100'",
    'find_profile("h100/llama")': "unknown profile 'h100/llama'; did you mean 'h100/llama-3.1-8b'? (list them with",
    "find_profile(3)": "name_or_path: must be a text or a path, but is 3",
    'workload("nothing.csv", gpus=1, profile="h100/llama-3.1-8b")': (
        "nothing.csv: no such file; give the path of a trace file"
    ),
    'workload(trace, gpus=0, profile="h100/llama-3.1-8b")': (
        "gpus: must be from 1 to 2147483647, but is 0; give another number"
    ),
    "workload(trace, gpus=1)": "workload(): missing a required argument: 'profile'",
    'workload(trace, gpus=1, profile="h100/lama")': (
        "unknown profile 'h100/lama'; did you mean 'h100/llama-3.1-8b'? (list them with"
    ),
    'workload(trace, gpus=1, profile="h100/llama-3.1-8b", batch_size=-1)': (
        "batch_size: must be from 1 to 2147483647, but is -1; give another number"
    ),
    'workload(trace, gpus=1, profile="h100/llama-3.1-8b", scale=0.0)': (
        "scale: must be greater than 0 and finite, but is 0; give a factor"
    ),
    'read_trace("nothing.csv")': "nothing.csv: no such file; give the path of a trace file",
    'read_trace(trace, columns={"arival_time": "t"})': (
        "columns: no standard column 'arival_time'; did you mean 'arrival_time'?"
    ),
    'fluid_trajectory(scenario, found, "gate-and-rout")': (
        "policy: must be 'gate-and-route' or 'sli-aware', but is 'gate-and-rout'; did you mean"
    ),
    "fluid_trajectory(scenario, found, horizon=-1.0)": (
        "fluid trajectory: horizon and step must be above 0 s and finite, and points at least 2"
    ),
    "fluid_trajectory(scenario, found, points=1)": (
        "fluid trajectory: horizon and step must be above 0 s and finite, and points at least 2"
    ),
    "fluid_trajectory(scenario, scenario)": "plan: must be a Plan, but is a Scenario",
    'fluid_trajectory(scenario, found, horizon=float("inf"))': "fluid trajectory: horizon and step must be above 0 s",
    'Scenario.load("s.toml", "x")': "load(): too many positional arguments; give all but path by name",
    'found.plot(b"x.png")': "path: must be a text or a path, but is a bytes, b'x.png'",
    "found.plot(file='x.png')": "plot() has no argument 'file'; it takes path",
    'scenario.for_gpus("5")': "gpus: must be a whole number, but is '5'",
    "list_policies(3)": "list_policies(): too many positional arguments; it takes none",
    'list_profiles("h100")': "list_profiles(): too many positional arguments; it takes none",
    "Gpu(16, 256)": "Gpu: fields go by name: Gpu(batch_size=..., chunk_size=..., iteration=...)",
    'find_policy("gate-and-route").with_functions("m", gat=len)': (
        "with_functions() has no argument 'gat'; did you mean 'gate'?"
    ),
    'find_policy("gate-and-route").with_functions("m", gate=3)': "gate: must be a function, but is 3",
    'find_policy("index-and-pool").with_parameters(3)': "values: must be a dictionary, but is 3",
    'replay(scenario, trace, "fi-wsp", gpus=5, columns={"prompt_tokens": 3})': (
        "columns: must be a dictionary of texts, but is a dict, {'prompt_tokens': 3}"
    ),
    'replay(scenario, frame, "fi-wsp", gpus=5)': (
        "traces: must be a text, a path, a ClassTrace or a list of texts, paths or ClassTraces, but is a DataFrame"
    ),
    'workload(frame, gpus=1, profile="h100/llama-3.1-8b")': "paths: must be a text, a path or a list of texts or",
    'size("examples/chat-fleet.toml", batch_sizes=[10**20])': (
        "batch_sizes: must be at least 1 and at most 2147483647, but is 100000000000000000000"
    ),
    'size("examples/chat-fleet.toml", targets=["ttft_p99=1", "ttft_p99=2"])': (
        "targets: ttft_p99 is given twice; give it once"
    ),
    'size("examples/chat-fleet.toml", targets={"ttft": 1})': (
        "targets: ttft is the limit that goodput counts by, and no goodput is asked for; give a statistic, such as "
        "targets=['ttft_p99=1'], or a goodput too"
    ),
    'size("examples/chat-fleet.toml", unit="ms")': (
        "unit: says how a trace is read, and there is none; give traces=FILE too"
    ),
    'size("examples/chat-fleet.toml", columns={"class": "x"})': "columns: says how a trace is read, and there is none",
    'size("examples/chat-fleet.toml", sort=True)': "sort: says how a trace is read, and there is none",
    'sweep(scenario, "gpu.batch_size", ["a"])': (
        "gpu.batch_size: must be a whole number, but is 'a'; give another (most requests in a batch, B)"
    ),
    'find_profile("examples/two-class.toml")': "examples/two-class.toml: a scenario, not a profile file; give a name",
    'find_profile("h100")': "unknown profile 'h100'; did you mean 'h100/llama-3.1-70b-tp4'?",
    'find_policy("examples")': "policy 'examples': a folder, and no policy; a policy file ends in .toml, one of your",
    'load_policy("examples/two-class.toml")': "examples/two-class.toml: a scenario, not a policy file; give a name",
    'Scenario.load("https://example.com/s.toml")': "https://example.com/s.toml: no such file; URLs are not read, so",
    'found.plot("nowhere/picture.png")': "nowhere/picture.png: can't be written (no such folder); name another file",
}
