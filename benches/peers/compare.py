#!/usr/bin/env python3
"""Latency of madd-prof beside the Python runtimes, interleaved: anyone can reproduce the table of the README with it.

    python -m venv v && v/bin/pip install -r benches/peers/requirements.txt
    v/bin/python benches/peers/compare.py target/release/madd-prof resnet50.onnx bert.onnx --threads 1 2 --rounds 5

Every peer keeps one process per (model, threads) loaded and blocked on its input while another is measured, madd-prof starts anew for a
round and warms up; they take turns, and the order rotates from round to round, so that drift of the machine falls on all alike. A
figure is the median over rounds of the round's median; the ratio is that of madd-prof over the best peer's; `x floor` is our median
over what this machine's ceilings allow ("Ceilings" in the README). Loading is timed over `--loads` new processes in turns, beside ONNX
Runtime's: `load` finds packed weights that an earlier process has kept, `first` does not (MADD_PROF_KEEP_GIB=0); since those are packed while
the model runs for the first time, `result` is all from opening the file to the first run's result, beside ONNX Runtime's session and first run. Inputs are random with a fixed seed (integers: ones).
A batch of 1 and the dims given by `--dim NAME=N` are bound where a model leaves them open.
"""
import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time

PEERS = ["ort", "openvino", "mnn"]


# ------------------------------------------------------------------------------------------------ the worker's side


def inputs_of(path, dims):
    import numpy as np
    import onnx

    model = onnx.load(path, load_external_data=False)
    held = {t.name for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    feeds = {}
    for i in model.graph.input:
        if i.name in held:
            continue
        t = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param, 1) for d in t.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        whole = np.issubdtype(kind, np.integer) or kind == np.bool_
        feeds[i.name] = np.ones(shape, kind) if whole else (rng.random(shape) - 0.5).astype(kind)
    return feeds


def ort_session(path, threads, feeds, _):
    import onnxruntime as ort

    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    if os.environ.get("ORT_OPTIMIZED_MODEL"):
        o.optimized_model_filepath = os.environ["ORT_OPTIMIZED_MODEL"]
    start = time.perf_counter()
    session = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    io = session.io_binding()
    for name, value in feeds.items():
        io.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for out in session.get_outputs():
        io.bind_output(out.name, "cpu")
    return (lambda: session.run_with_iobinding(io)), load, ort.__version__


def openvino_session(path, threads, feeds, _):
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    start = time.perf_counter()
    core = ov.Core()
    model = core.read_model(path)
    if model.is_dynamic():
        model.reshape({name: list(value.shape) for name, value in feeds.items()})
    compiled = core.compile_model(model, "CPU", settings)
    load = time.perf_counter() - start
    request = compiled.create_infer_request()
    for name, value in feeds.items():
        request.set_tensor(name, ov.Tensor(value))
    return (lambda: request.infer(share_outputs=True)), load, ov.__version__


def mnn_session(path, threads, feeds, work):
    import MNN

    converted = os.path.join(work, os.path.basename(path)[:-5] + ".mnn")
    if not os.path.exists(converted):
        tool = os.path.join(os.path.dirname(sys.executable), "mnnconvert")
        subprocess.run([tool, "-f", "ONNX", "--modelFile", path, "--MNNModel", converted, "--bizCode", "x"], capture_output=True, check=True)
    start = time.perf_counter()
    net = MNN.Interpreter(converted)
    session = net.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    load = time.perf_counter() - start
    for name, value in feeds.items():
        slot = net.getSessionInputAll(session)[name]
        kind = MNN.Halide_Type_Float if value.dtype.kind == "f" else MNN.Halide_Type_Int
        value = value if value.dtype.kind == "f" else value.astype("int32")
        slot.copyFrom(MNN.Tensor(tuple(value.shape), kind, value, MNN.Tensor_DimensionType_Caffe))
    return (lambda: net.runSession(session)), load, MNN.version()


def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def worker(peer, path, threads, dims, work, only_load=False):
    feeds = inputs_of(path, dims)
    run, load, version = globals()[peer + "_session"](path, threads, feeds, work)
    start = time.perf_counter()
    run()
    first = load + time.perf_counter() - start
    for _ in range(0 if only_load else 2):
        run()
    print(json.dumps({"version": version, "load_s": load, "first_s": first}), flush=True)
    if only_load:
        return
    for line in sys.stdin:
        seconds = float(line)
        times, end = [], time.perf_counter() + seconds
        run()
        while len(times) < 4 or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(json.dumps({"median_ms": statistics.median(times) * 1e3, "min_ms": min(times) * 1e3, "peak_bytes": peak_bytes()}), flush=True)


# ------------------------------------------------------------------------------------------------ the driver's side


class Peer:
    def __init__(self, name, path, threads, args):
        self.name, self.rounds = name, []
        command = [sys.executable, __file__, "--worker", name, path, str(threads), json.dumps(args.dims), args.work]
        env = dict(os.environ, OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
        self.command, self.env, self.info = command, env, self.answer()

    def load(self):
        """Seconds to open a session in a process of its own, and to the result of its first run."""
        command = self.command[:2] + ["--load"] + self.command[3:]
        lines = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.env).stdout
        found = next(json.loads(line) for line in lines.splitlines() if line.startswith("{"))
        return found["load_s"], found["first_s"]

    def answer(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name} ended")
            if line.startswith("{"):
                return json.loads(line)

    def round(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.rounds.append(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """One process per round: `bench` loads, warms up, measures and ends."""

    def __init__(self, name, binary, path, threads, args):
        self.name, self.rounds, self.longest = name, [], 0.0
        self.command = [binary, "bench", path, "--path", "optimized", "--threads", str(threads), "--format", "json", "--quiet"]
        for dim, n in args.dims.items():
            self.command += ["--dim", f"{dim}={n}"]
        self.info = {"version": subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()[-1]}

    def bench(self, seconds, **env):
        env = dict(os.environ, **env)
        done = subprocess.Popen(self.command + ["--seconds", str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        out, err = done.stdout.read(), done.stderr.read()
        _, status, usage = os.wait4(done.pid, 0)
        if status:
            raise RuntimeError(err.strip()[-300:])
        report = json.loads(out)
        return report["latency"]["optimized"], report, usage

    def load(self, **env):
        latency, _, _ = self.bench(0.001, **env)
        # Versions that packed everything before the first run do not tell when that ended: it takes as long as any.
        prepare = latency.get("prepare_ms", math.nan)
        return prepare / 1e3, (latency.get("first_ms") or prepare + latency["median_ms"]) / 1e3

    def first_load(self):
        """As on a machine that has not seen the model."""
        return self.load(MADD_PROF_KEEP_GIB="0")

    def round(self, seconds):
        # As many runs as a peer makes at the least, and a process that has just loaded needs a few before it is steady.
        latency, report, usage = self.bench(max(seconds, 8 * self.longest))
        self.longest = latency["median_ms"] / 1e3
        if latency["runs"] < 4:
            latency, report, usage = self.bench(8 * self.longest)
        self.info.setdefault("load_s", latency.get("prepare_ms", math.nan) / 1e3)
        self.info["floor_ms"] = (report.get("roofline") or {}).get("floor_ms", math.nan)
        self.rounds.append({"median_ms": latency["median_ms"], "min_ms": latency["min_ms"], "peak_bytes": usage.ru_maxrss * 1024})

    def close(self):
        pass


def measure(path, threads, args):
    subjects = []
    for i, binary in enumerate(args.binary.split(",")):
        subjects.append(Ours("ours" if i == 0 else f"ours{i + 1}", binary, path, threads, args))
    for name in args.peers:
        try:
            subjects.append(Peer(name, path, threads, args))
        except (RuntimeError, OSError) as error:
            print(f"{os.path.basename(path)}: {error}", file=sys.stderr)
    # Loading, in turns, each time in a new process; the file has been read before.
    loads = {s.name: [] for s in subjects}
    firsts = []
    for s in subjects if args.loads else []:
        if isinstance(s, Ours):
            s.load()  # keeps what it packs
    for _ in range(args.loads):
        for s in subjects:
            loads[s.name].append(s.load())
        firsts.append(subjects[0].first_load())
    for s in subjects:
        if loads[s.name]:
            s.info["load_s"], s.info["first_s"] = map(statistics.median, zip(*loads[s.name]))
    if firsts:
        subjects[0].info["first_load_s"], subjects[0].info["first_result_s"] = map(statistics.median, zip(*firsts))
    for r in range(args.rounds):
        turn = r % len(subjects)
        for s in subjects[turn:] + subjects[:turn]:
            s.round(args.seconds)
    result = {}
    for s in subjects:
        s.close()
        result[s.name] = {
            **s.info,
            "median_ms": statistics.median(x["median_ms"] for x in s.rounds),
            "min_ms": min(x["min_ms"] for x in s.rounds),
            "peak_mb": max(x["peak_bytes"] for x in s.rounds) / 1e6,
            "rounds_ms": [round(x["median_ms"], 3) for x in s.rounds],
        }
    return result


def main():
    if sys.argv[1:2] in (["--worker"], ["--load"]):
        peer, path, threads, dims, work = sys.argv[2:]
        return worker(peer, path, int(threads), json.loads(dims), work, sys.argv[1] == "--load")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", help="madd-prof; several with commas are compared with each other too")
    p.add_argument("models", nargs="+")
    p.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    p.add_argument("--peers", nargs="*", default=PEERS[:2], help=f"of {' '.join(PEERS)} (default: the first two)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="per subject and round")
    p.add_argument("--loads", type=int, default=3, help="times each loads a model, for the columns first/ort, load/ort and result/ort (0: as it happens)")
    p.add_argument("--dim", action="append", default=[], metavar="NAME=N")
    p.add_argument("--work", default=".", help="where converted models go")
    p.add_argument("--output", help="all figures as JSON")
    args = p.parse_args()
    args.dims = {k: int(v) for k, v in (d.split("=") for d in args.dim)}
    print(f"{platform.machine()} {platform.processor()}, load {os.getloadavg()[0]:.2f}, {args.rounds} rounds of {args.seconds} s")
    print(f"{'model':28} thr " + " ".join(f"{n:>10}" for n in ["ours"] + args.peers) + "    ratio  x floor  first/ort load/ort result/ort  peak MB (ours, peers)")
    everything, ratios, floors = {}, {t: [] for t in args.threads}, {t: [] for t in args.threads}
    # The floor is what this machine's ceilings allow: probed once, before anything is measured.
    subprocess.run([args.binary.split(",")[0], "machine", "--quiet"], capture_output=True)
    for path in args.models:
        for threads in args.threads:
            r = measure(path, threads, args)
            name = os.path.basename(path)[:-5]
            everything[f"{name}|{threads}"] = r
            peers = [r[n]["median_ms"] for n in args.peers if n in r]
            ratio = r["ours"]["median_ms"] / min(peers) if peers else math.nan
            ratios[threads].append(ratio)
            columns = (("load_s", "load_s"), ("first_load_s", "load_s"), ("first_result_s", "first_s"))
            load, first, result = (r["ours"].get(k, math.nan) / r["ort"].get(by, math.nan) if "ort" in r else math.nan for k, by in columns)
            floor = r["ours"]["median_ms"] / r["ours"]["floor_ms"]
            floors[threads].append(floor)
            cells = " ".join(f"{r[n]['median_ms']:10.2f}" if n in r else f"{'-':>10}" for n in ["ours"] + args.peers)
            extra = " ".join(f"{n} {v['median_ms']:.2f}" for n, v in r.items() if n.startswith("ours") and n != "ours")
            memory = " ".join(f"{r[n]['peak_mb']:.0f}" for n in ["ours"] + args.peers if n in r)
            print(f"{name:28} {threads:3} {cells}  {ratio:7.3f}  {floor:7.2f}  {first:8.2f}  {load:8.2f}  {result:10.2f}  {memory} {extra}", flush=True)
            if args.output:
                with open(args.output, "w") as out:
                    json.dump(everything, out, indent=1)
    for threads, all_ratios in ratios.items():
        mean = math.exp(statistics.fmean(map(math.log, all_ratios)))
        above = math.exp(statistics.fmean(map(math.log, floors[threads])))
        print(f"geometric mean of the ratios, {threads} threads: {mean:.3f}; largest {max(all_ratios):.3f}; measured / floor {above:.2f}")
    versions = {n: v["version"] for r in everything.values() for n, v in r.items()}
    print("versions: " + ", ".join(f"{n} {v}" for n, v in versions.items()))


if __name__ == "__main__":
    main()
