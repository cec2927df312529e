"""Sampling: equality with the host's algorithm (in numpy, f64), chi-square of the draws, penalties, errors. `--time` adds timings."""

import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import launch  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from launch import median_us  # noqa: E402

gpu = launch.Gpu()
seed = int(np.random.SeedSequence().generate_state(1)[0])
random = np.random.default_rng(seed)
torch.manual_seed(seed)
passed = failed = 0
F32_MAX = np.float32(3.40282347e38)

ROW = np.dtype([("seed", "u8"), ("logits", "u4"), ("slot", "u4"), ("sequence", "u4"), ("position", "u4"), ("active", "u4"), ("top_k", "u4"),
                ("temperature", "f4"), ("top_p", "f4"), ("min_p", "f4"), ("repetition", "f4"), ("presence", "f4"), ("frequency", "f4"),
                ("adjustments", "u4"), ("adjustment_count", "u4"), ("last", "i4"), ("unused", "u4", 3)])
ADJUSTMENT = np.dtype([("token", "u4"), ("seen", "u4"), ("generated", "u4"), ("bias", "f4")])
RESULT = np.dtype([("token", "u4"), ("status", "u4"), ("logit", "f4"), ("lse", "f4")])
assert ROW.itemsize == 80 and ADJUSTMENT.itemsize == 16 and RESULT.itemsize == 16


def case(name, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok' if good else 'FAILED'} {name} {detail}", flush=True)


def attempt(name, work):
    try:
        work()
    except Exception as e:  # one failure must not hide the others
        case(f"{name}: {type(e).__name__} {e}", False)


# ---- The host's algorithm ----


def philox(seed, counter):
    key, x = [seed & 0xFFFFFFFF, seed >> 32], list(counter)
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(b >> 32) ^ x[1] ^ key[0], b & 0xFFFFFFFF, (a >> 32) ^ x[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


def uniform(row):
    low, mid, _, _ = philox(int(row["seed"]), [int(row["position"]), int(row["sequence"]), 0, 0])
    return ((mid << 32 | low) >> 11) / 2**53


def process(raw, row, adjustments, last_token):
    """Penalties, then biases and bans; `adjustments` are this row's."""
    logits, entries = raw.copy(), {}
    for a in adjustments:
        entries.setdefault(int(a["token"]), []).append(a)
    if last_token is not None:
        own = entries.setdefault(last_token, [])
        if not own or not own[0]["seen"]:
            own.insert(0, {"seen": 1, "generated": 0})
    one = np.float32
    with np.errstate(all="ignore"):
        for token, changes in entries.items():
            if token >= len(logits):
                continue
            x = logits[token]
            for a in changes:
                if x == -np.inf:
                    break
                if a["seen"]:
                    generated = int(a["generated"]) + (token == last_token)
                    x = x / row["repetition"] if x > 0 else x * row["repetition"]
                    if generated:
                        x = one(one(x - row["presence"]) - one(row["frequency"] * one(generated)))
                else:
                    x = one(x + a["bias"])
                x = F32_MAX if np.isnan(x) else min(x, F32_MAX)
            logits[token] = x
    return logits


def kept(logits, row):
    """Ids that the filters keep, ascending, their weights, and how far top-p's boundary is from another choice."""
    ids = np.nonzero(logits != -np.inf)[0]
    bits = logits[ids].view(np.int32).astype(np.int64)
    total_order = np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
    ids = ids[np.lexsort((ids, -total_order))]
    if 0 < row["top_k"] < len(ids):
        ids = ids[: row["top_k"]]
    weights = np.exp((logits[ids].astype(np.float64) - np.float64(logits.max())) / np.float64(row["temperature"]))
    edge = 1.0
    if row["top_p"] < 1:
        edge = float(np.abs(np.cumsum(weights) / weights.sum() - np.float64(row["top_p"])).min())
        reached = np.nonzero(np.cumsum(weights) >= np.float64(row["top_p"]) * weights.sum())[0]
        if len(reached):
            ids, weights = ids[: reached[0] + 1], weights[: reached[0] + 1]
    stay = weights >= np.float64(row["min_p"])
    ids, weights = ids[stay], weights[stay]
    back = np.argsort(ids)
    return ids[back], weights[back], edge


def host(raw, row, adjustments=(), last_token=None):
    """(token, status, distance): a token within `distance` of the draw's boundary may come out differently."""
    for logits in (raw, process(raw, row, adjustments, last_token)):
        if np.isnan(logits).any() or (logits == np.inf).any():
            return 0, 1, 1.0
        if logits.max() == -np.inf:
            return 0, 2, 1.0
    if row["temperature"] == 0:
        return int(np.argmax(logits)), 0, 1.0
    ids, weights, edge = kept(logits, row)
    cumulative = np.cumsum(weights)
    target = uniform(row) * weights.sum()
    at = min(int(np.searchsorted(cumulative, target, side="right")), len(ids) - 1)
    return int(ids[at]), 0, min(edge, float(np.abs(cumulative - target).min() / cumulative[-1]))


# ---- The device ----

programs = {}
clusters = int(gpu.arch.strip("sma_")) >= 90


def program(vocab, stride, blocks):
    for key, source, name, shared in (((vocab, stride), "sample/sample.cu", "sample", 0), ((vocab, stride, blocks), "sample/filter.cu", "filter", 65536)):
        if key not in programs:
            defines = {"VOCAB": vocab, "STRIDE": stride} | ({"BLOCKS": blocks} if len(key) == 3 else {})
            programs[key] = gpu.function(launch.compile(source, defines, gpu.arch), name, shared)
    return programs[vocab, stride], programs[vocab, stride, blocks]


def blocks_for(rows):
    """As many as leave no multiprocessor of 128 without work."""
    return next((b for b in (8, 4, 2) if b * rows <= 128), 1) if clusters else 1


def to_gpu(array):
    raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    return torch.from_numpy(raw.copy() if len(raw) else np.zeros(16, np.uint8)).cuda()


class Batch:
    """Device buffers for some rows; `logits` is a tensor [any][stride] on the GPU."""

    def __init__(self, vocab, logits, rows, adjustments=None, sampled=None, blocks=1):
        self.blocks = blocks
        self.vocab, self.stride, self.count, self.slices = vocab, logits.shape[1], len(rows), -(-vocab // 8192)
        self.logits, self.rows = logits, to_gpu(rows)
        self.adjustments = to_gpu(adjustments if adjustments is not None else np.zeros(1, ADJUSTMENT))
        self.sampled = sampled if sampled is not None else torch.full((len(rows) + 1,), -7, dtype=torch.int32, device="cuda")
        self.results = torch.full(((len(rows) + 1) * 16,), 0xA5, dtype=torch.uint8, device="cuda")
        self.processed = torch.full((len(rows) if (rows["adjustment_count"] > 0).any() or (rows["last"] >= 0).any() else 1, self.stride), math.nan, device="cuda")
        self.partials = torch.full((len(rows) * self.slices * (32 + 2048),), 0xFF, dtype=torch.uint8, device="cuda")
        self.arrived = torch.zeros(len(rows), dtype=torch.int32, device="cuda")

    def launch(self, pdl=True):
        args = [self.results, self.sampled, self.logits, self.rows, self.adjustments, self.processed, self.partials, self.arrived, ("u32", self.count)]
        sample, choose = program(self.vocab, self.stride, self.blocks)
        gpu.launch(sample, (self.slices, self.count), 512, args, pdl=pdl)
        gpu.launch(choose, (self.blocks, self.count), 1024, args, shared=65536, pdl=pdl)

    def run(self):
        self.launch()
        torch.cuda.synchronize()
        results = self.results.cpu().numpy().view(RESULT)
        clean = not self.arrived.any() and (self.results[-16:] == 0xA5).all()
        assert clean, "arrivals are not at zero, or a row beyond the count was written"
        return results[:-1]


def new_rows(count, **fields):
    rows = np.zeros(count, ROW)
    rows["active"], rows["top_p"], rows["repetition"], rows["last"] = 1, 1.0, 1.0, -1
    rows["slot"] = rows["logits"] = np.arange(count)
    rows["seed"] = random.integers(0, 2**64, count, dtype=np.uint64)
    rows["sequence"], rows["position"] = random.integers(0, 128, count), random.integers(0, 5000, count)
    for name, value in fields.items():
        rows[name] = value
    return rows


def random_logits(count, vocab, stride=None, spread=3.0):
    logits = torch.randn(count, stride or vocab, device="cuda") * spread
    logits[:, vocab:] = math.nan  # padding holds anything
    return logits


def compare(name, batch, rows, adjustments=None, last_tokens=None, lse=True, blocks=()):
    results, raw = batch.run(), batch.logits[:, : batch.vocab].cpu().numpy()
    sampled = batch.sampled.cpu().numpy()
    wrong, close = [], 0
    for r, row in enumerate(rows):
        own = adjustments[row["adjustments"] : row["adjustments"] + row["adjustment_count"]] if adjustments is not None else ()
        token, status, distance = host(raw[row["logits"]], row, own, last_tokens[r] if last_tokens is not None else None)
        got = results[r]
        if got["status"] != status or sampled[row["slot"]] != got["token"]:
            wrong.append((r, "status or slot", got, status))
        elif got["token"] != token:
            if distance < 1e-6:
                close += 1
            else:
                wrong.append((r, int(got["token"]), token, row))
        if lse and status == 0:
            x = raw[row["logits"]].astype(np.float64)
            want = x.max() + np.log(np.exp(x - x.max()).sum())
            if abs(got["lse"] - want) > 3e-6 * max(1, abs(want)) or got["logit"] != raw[row["logits"]][got["token"]]:
                wrong.append((r, "logit or log-sum-exp", got, want))
    for batch.blocks in blocks if clusters else ():
        if batch.run().tobytes() != results.tobytes():
            wrong.append(f"other results of {batch.blocks} blocks")
    case(name, not wrong and close <= 1, f"{len(rows)} rows, {close} at a boundary {wrong[:2] if wrong else ''}")


def equality(vocab, stride=None, count=24):
    kinds = {
        "greedy": {}, "temperature": {"temperature": random.uniform(0.3, 2, count)},
        "top-k": {"temperature": 0.9, "top_k": random.integers(1, 80, count)},
        "top-p": {"temperature": random.uniform(0.3, 1.2, count), "top_p": random.uniform(0.05, 0.99, count)},
        "min-p": {"temperature": 1.1, "min_p": 10 ** random.uniform(-6, 0, count)},
        "all": {"temperature": random.uniform(0.3, 2, count), "top_k": random.integers(1, 900, count), "top_p": random.uniform(0.3, 0.99, count), "min_p": 10 ** random.uniform(-5, -1, count)},
        "large k": {"temperature": 1.5, "top_k": random.integers(1025, 6000, count), "top_p": random.uniform(0.5, 1, count)},
    }
    for kind, fields in kinds.items():
        rows = new_rows(count, **fields)
        # Fewer rows of logits than sample rows: some share.
        rows["logits"] = random.integers(0, count // 2, count)
        compare(f"{kind} {vocab}/{stride or vocab}", Batch(vocab, random_logits(count // 2, vocab, stride), rows), rows)


def flat():
    rows = new_rows(6, temperature=100.0, top_p=[0.99, 0.5, 1, 0.9999, 1, 0.8], top_k=[0, 0, 50000, 0, 0, 100000], min_p=[0, 0, 0, 0, 0.9, 0.92])
    compare("flat rows, too many candidates", Batch(128256, random_logits(6, 128256), rows), rows)
    rows = new_rows(6, temperature=[1, 1e-30, 1e-42, 3, 1, 1], top_p=[1, 0.5, 1, 1e-12, 1 - 2**-24, 1], min_p=[1, 0, 0.5, 0, 0, 1e-30], top_k=[0, 0, 3, 0, 0, 0])
    compare("extreme parameters", Batch(32000, random_logits(6, 32000), rows), rows)


def shaped(kind, count, vocab):
    """Rows whose logits are spread in one way or another."""
    def tokens(n):
        return torch.arange(count)[:, None], torch.from_numpy(random.integers(0, vocab, (count, n)))

    logits = random_logits(count, vocab, spread=2.5)
    if kind == "peaked":  # a few likely tokens, as a language model has them
        logits[tokens(40)] += 9
    elif kind == "flat":
        logits *= 0.004
    elif kind == "flat, outliers":
        logits *= 0.0001
        logits[tokens(3)] += 8
    elif kind == "one-hot":
        logits[:] = 0
        logits[tokens(1)] = 30
    elif kind == "all equal":
        logits[:] = 1.25
    elif kind == "two values":
        logits[:] = (logits > 2).float()
    elif kind == "bf16":
        logits = logits.bfloat16().float()
    elif kind == "zeros":  # of both signs
        logits[:] = torch.where(logits > 0, 0.0, -0.0)
    elif kind == "tiny":
        logits *= 1e-39
    elif kind == "huge":
        logits = torch.sign(logits) * (10 ** (logits * 3)).clamp_max(1e38)
    else:
        assert kind == "heavy tail"
    return logits


SHAPES = ("peaked", "heavy tail", "flat", "flat, outliers", "one-hot", "all equal", "two values", "bf16", "zeros", "tiny", "huge")


def shapes(vocab):
    for kind in SHAPES:
        rows = new_rows(12, temperature=[0.8, 1, 1, 0.8, 1.5, 1, 0.7, 1, 1, 1, 2, 1], top_p=[0.9, 0.5, 0.95, 1, 1, 1, 0.9, 0.8, 0.99, 1, 0.999, 0.3],
                        top_k=[0, 0, 0, 50, 1, 3000, 50, 20000, 300, 0, 0, 0], min_p=[0, 0, 0.1, 0, 0, 0, 0.05, 0, 0, 0.1, 0, 0])
        compare(f"{kind}, {vocab}", Batch(vocab, shaped(kind, 12, vocab), rows), rows, blocks=(8, 2))


def ties():
    logits = torch.zeros(8, 1000, device="cuda")
    logits[1:4] = random_logits(3, 1000).round()
    logits[4] = -0.0
    logits[4, ::3] = 0.0
    logits[5, 500:] = -math.inf
    logits[6] = 3e38 * torch.sign(random_logits(1, 1000)[0])
    logits[7, 5:] = -math.inf
    for name, fields in {"greedy": {}, "temperature": {"temperature": 1.0}, "top-k": {"temperature": 1.0, "top_k": 7}, "top-p": {"temperature": 1.0, "top_p": 0.37},
                         "k, p": {"temperature": 0.7, "top_k": 400, "top_p": 0.73}, "min-p": {"temperature": 1.0, "min_p": 0.2}}.items():
        rows = new_rows(40, **fields)
        rows["logits"] = np.arange(40) % 8
        compare(f"ties: {name}", Batch(1000, logits, rows), rows)


def penalties(vocab, count=24):
    logits, entries, last_tokens = random_logits(count, vocab), [], []
    logits[:, 3] = -math.inf
    rows = new_rows(count, temperature=random.choice([0, 0.8], count), top_k=random.choice([0, 40], count), repetition=random.choice([1, 0.5, 1.3], count),
                    presence=random.choice([0, 0.7, -1], count), frequency=random.choice([0, 0.3, -0.2], count))
    sampled = torch.randint(0, vocab, (2 * count,), dtype=torch.int32, device="cuda")
    for r in range(count):
        best = int(logits[r].argmax())
        own, tokens = [], set(random.integers(0, vocab, random.integers(0, min(vocab, 600))).tolist() + [best, 3, vocab + 5])
        for token in random.permutation(list(tokens)):
            if random.random() < 0.7:
                own.append((token, 1, random.integers(0, 4), np.nan))
            for _ in range(random.integers(0, 3)):
                own.append((token, 0, 0, random.normal()))
            if random.random() < 0.05:
                own.append((token, 0, 0, -np.inf))
        if r % 6 == 5:
            own = []
        rows[r]["adjustments"], rows[r]["adjustment_count"] = len(entries), len(own)
        entries += own
        last = count + r if r % 3 else -1
        rows[r]["last"] = last
        if last >= 0 and r % 2:
            sampled[last] = best  # often among the adjustments
        last_tokens.append(int(sampled[last]) if last >= 0 else None)
    adjustments = np.array(entries, ADJUSTMENT)
    compare(f"penalties, biases and bans {vocab}", Batch(vocab, logits, rows, adjustments, sampled), rows, adjustments, last_tokens)


def errors():
    logits = random_logits(9, 32000)
    logits[0, 31999], logits[1, 77], logits[2] = math.nan, math.inf, -math.inf
    logits[3, 1:], logits[4, :20000] = -math.inf, -math.inf
    logits[8, 9000] = -math.nan
    rows = new_rows(9, temperature=[0, 1, 1, 1, 0.5, 0, 1, 1, 0], top_k=[0, 0, 5, 0, 0, 0, 5, 0, 0], top_p=[1, 1, 1, 1, 0.9, 1, 1, 1, 1])
    adjustments = np.array([(t, 0, 0, -np.inf) for t in range(32000)], ADJUSTMENT)
    rows["adjustment_count"][5:7] = 32000
    rows["active"][7] = 0
    batch = Batch(32000, logits, rows, adjustments)
    results, sampled = batch.run(), batch.sampled.cpu().numpy()
    case("errors: statuses", results["status"][[0, 1, 2, 3, 4, 5, 6, 8]].tolist() == [1, 1, 2, 0, 0, 2, 2, 1], results["status"])
    case("errors: an inactive row is left alone", sampled[7] == -7 and results[7]["status"] == 0xA5A5A5A5)
    case("errors: token 0 and only choices", results["token"][[0, 1, 2, 3, 5, 6, 8]].tolist() == [0] * 7 and sampled[[0, 1, 2]].tolist() == [0] * 3 and results[4]["token"] >= 20000)


def chi_square(vocab, draws=20000):
    logits = random_logits(1, vocab, spread=1.5)
    raw = logits[0].cpu().numpy()
    for name, fields in {"temperature": {}, "top-k": {"top_k": 9}, "top-p": {"top_p": 0.8}, "min-p": {"min_p": 0.05}, "all": {"top_k": 15, "top_p": 0.9, "min_p": 0.02}}.items():
        rows = new_rows(draws, temperature=1.2, seed=random.integers(0, 2**63), sequence=5, position=np.arange(draws), **fields)
        rows["logits"] = 0
        tokens = Batch(vocab, logits, rows).run()["token"]
        ids, weights, _ = kept(raw, rows[0])
        expected, seen = draws * weights / weights.sum(), np.bincount(tokens, minlength=vocab)
        outside = draws - seen[ids].sum()
        statistic, freedom = float(((seen[ids] - expected) ** 2 / expected)[expected > 5].sum()), int((expected > 5).sum()) - 1
        # Beyond 4.5 deviations of the chi-square distribution: about once in 10^5 runs.
        case(f"chi-square {vocab} {name}", outside == 0 and statistic < freedom + 4.5 * math.sqrt(2 * max(freedom, 1)) + 8, f"{statistic:.1f} at {freedom} degrees, {outside} outside")


def independence():
    count, vocab = 32, 128256
    logits = random_logits(count, vocab)
    rows = new_rows(count, temperature=random.choice([0, 0.8], count), top_p=random.choice([1, 0.9], count))
    together = Batch(vocab, logits, rows)
    first = together.run().copy()
    again = together.run().copy()
    alone = []
    for r in range(0, count, 5):
        row = rows[r : r + 1].copy()
        row["slot"] = 0
        alone.append(Batch(vocab, logits, row).run()[0])
    case("rows are independent, to the bit", first.tobytes() == again.tobytes() and np.array(alone).tobytes() == first[::5].tobytes())


def timings():
    vocab, peak = 128256, 4.6e12 if "H200" in torch.cuda.get_device_name() else 2.95e12
    adjustments = np.array([(t, 1, 1, 0) for t in random.permutation(vocab)[:1000]], ADJUSTMENT)
    modes = {"greedy": {}, "temperature": {"temperature": 0.8}, "top-k 50": {"temperature": 0.8, "top_k": 50}, "top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
             "k 50, p 0.9, min-p 0.05": {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05}, "top-k 5000": {"temperature": 0.8, "top_k": 5000},
             "min-p 0.1": {"temperature": 0.8, "min_p": 0.1}, "greedy, 1000 penalties": {"adjustment_count": 1000, "repetition": 1.2}}
    shapes_of = {"top-k 50": ("peaked", "heavy tail", "flat", "all equal"), "top-p 0.9": SHAPES[:6]}
    print(f"{'sample, 128256 logits, us':28} {'':15}" + "".join(f"{count:>10}" for count in (1, 64, 256)))
    print(f"{'floor (one read)':44}" + "".join(f"{count * vocab * 4 / peak * 1e6:10.2f}" for count in (1, 64, 256)))
    for name, fields in modes.items():
        for kind in shapes_of.get(name, ("peaked",)):
            line = []
            for count in (1, 64, 256):
                rows = new_rows(count, **fields)
                batches = [Batch(vocab, shaped(kind, count, vocab), rows, adjustments, blocks=blocks_for(count)) for _ in range(3)]
                line.append(median_us(torch, lambda: [b.launch() for b in batches * 2], replays=9) / 6)
            print(f"{name:28} {kind:15}" + "".join(f"{us:10.2f}" for us in line), flush=True)


if __name__ == "__main__":
    print(f"seed {seed}, {torch.cuda.get_device_name()}", flush=True)
    attempt("equality", lambda: equality(24))
    attempt("equality", lambda: equality(1000))
    attempt("equality", lambda: equality(1, 4, 4))
    attempt("equality", lambda: equality(8193, 8200))
    attempt("equality", lambda: equality(50257))
    attempt("equality", lambda: equality(128256, count=16))
    attempt("flat", flat)
    for vocab in (3000, 128256):
        attempt("shapes", lambda: shapes(vocab))
    attempt("ties", ties)
    for vocab in (24, 1001, 32000):
        attempt("penalties", lambda: penalties(vocab))
    attempt("errors", errors)
    for vocab in (24, 1000):
        attempt("chi-square", lambda: chi_square(vocab))
    attempt("independence", independence)
    if "--time" in sys.argv:
        timings()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
