"""Measures the programs that `run` has built, and prints Markdown tables of `median (least to most)`."""

import os
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = Path(sys.argv[1])
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "AZMUTEX_"))}
ROUNDS = 15
LOCKS = 300  # in a program that takes many
STARTS = 5  # of a program that takes one, in a round

RUST = "Azure SDK for Rust"
PYTHON = "Azure SDK for Python"
PROGRAMS = {
    "azmutex": [WORK / "release/peer-azmutex"],
    RUST: [WORK / "release/peer-rust-sdk"],
    PYTHON: [sys.executable, HERE / "python_sdk.py"],
}
MANIFESTS = {"azmutex": HERE / "azmutex/Cargo.toml", RUST: HERE / "rust_sdk/Cargo.toml"}
TIMES = 3
ALONE = [
    ("requests for a lock and its release", "lock", r"^  lock and release: ([\d.]+) requests"),
    ("instructions, over the same two requests made with `ureq` by hand", "instructions", r"to timed requests: ([\d.]+)"),
    ("memory for each of 1,000 guards held in one process, each renewed twice, KiB", "memory", r"renewed twice: ([\d.]+)"),
    ("CPU time of `azmutex run --no-fencing x -- true`, over a bare client that does as much", "startup", r"^([\d.]+) times"),
]


class Server:
    """The emulator, which ends when its input does: with this process at the latest."""

    def __init__(self):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen([WORK / "release/server"], **pipes)
        endpoint, sas = self.process.stdout.readline().split()
        self.clients = {
            **{name: value for name, value in ENVIRONMENT.items() if not name.lower().endswith("_proxy")},
            "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={endpoint};SharedAccessSignature={sas}",
            "PEERS_BLOB_URL": f"{endpoint}/locks/peers?{sas}",
        }

    def requests(self):
        print(file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


def job(server, name, locks):
    """Wall time, CPU time, peak memory in MiB and requests of a program, from start to end."""
    before = server.requests()
    start = time.monotonic()
    command = [*PROGRAMS[name], str(locks)]
    program = subprocess.Popen(command, env=server.clients, stdout=subprocess.PIPE, text=True)
    output = program.stdout.read()
    _, status, usage = os.wait4(program.pid, 0)
    wall = time.monotonic() - start
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode != 0:
        sys.exit(f"{name} failed")
    return wall, usage.ru_utime + usage.ru_stime, int(output.split()[1]) / 1024, server.requests() - before


def spread(values):
    return statistics.median(values), min(values), max(values)


def shown(median, least, most):
    median, least, most = (f"{value:.3g}" for value in (median, least, most))
    return median if least == most else f"{median} ({least} to {most})"


def table(corner, columns, rows):
    lines = [[corner, *columns], *([label, *cells] for label, cells in rows.items())]
    head, *body = [f"| {' | '.join(line)} |\n" for line in lines]
    return head + "|---" * (len(columns) + 1) + "|\n" + "".join(body)


def programs():
    server = Server()
    for name in PROGRAMS:  # the first creates the blob; and Python compiles
        job(server, name, 1)
    one, lock, requests, memory = ({name: [] for name in PROGRAMS} for _ in range(4))
    names = list(PROGRAMS)
    for _ in range(ROUNDS):
        names.append(names.pop(0))  # none is always the first
        for name in names:
            starts = [job(server, name, 1) for _ in range(STARTS)]
            wall, cpu, peak, sent = (statistics.mean(values) for values in zip(*starts))
            many = job(server, name, LOCKS + 1)
            one[name].append((wall, cpu))
            lock[name].append(((many[0] - wall) / LOCKS, (many[1] - cpu) / LOCKS))
            requests[name].append((many[3] - sent) / LOCKS)
            memory[name].append(peak)

    others = [RUST, PYTHON]

    def ratios(measured, which):
        pairs = ([theirs[which] / ours[which] for theirs, ours in zip(measured[name], measured["azmutex"])] for name in others)
        return [shown(*spread(values)) for values in pairs]

    times = {
        "CPU time of a lock and its release": ratios(lock, 1),
        "its wall time, the service 2 ms away": ratios(lock, 0),
        "CPU time of a program that takes one lock, from start to end": ratios(one, 1),
        "its wall time": ratios(one, 0),
    }
    sizes = {
        "requests for a lock and its release": [shown(*spread(requests[name])) for name in PROGRAMS],
        "peak memory of a program that takes one lock, MiB": [shown(*spread(memory[name])) for name in PROGRAMS],
        "its size, MB": [f"{os.path.getsize(PROGRAMS[name][0]) / 1e6:.2g}" for name in MANIFESTS] + ["–"],
        "crates besides its own": [str(crates(manifest)) for manifest in MANIFESTS.values()] + ["–"],
    }
    return table("times as much as azmutex", others, times) + "\n" + table("a program and its lock", PROGRAMS, sizes)


def crates(manifest):
    """How many crates a program is built of, besides its own."""
    tree = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--manifest-path", manifest]
    lines = subprocess.run(tree, check=True, capture_output=True, text=True).stdout.splitlines()
    return len({line.removesuffix(" (*)") for line in lines}) - 1


def waiting():
    command = [WORK / "release/contention", "--peers"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    columns, rows = [], {}
    for line in lines:
        label, policy, *values = line.split("\t")
        if policy not in columns:
            columns.append(policy)
        rows.setdefault(label, []).append(shown(*map(float, values)))
    return table("waiting for holds of a minute", columns, rows)


def alone():
    """What README says of azmutex alone, by the commands that it names."""
    target = WORK.parent
    startup = f"cargo run --release --features cli,emulator --example startup_cost {target}/release/azmutex"
    benches = {name: f"cargo bench --bench {name}" for name in ("lock", "instructions", "memory")}
    commands = {**benches, "startup": f"cargo build --release --features cli && {startup}"}
    cells = {name: f"`{command}`" for name, command in benches.items()}
    cells["instructions"] += " (needs valgrind)"
    cells["startup"] = "`examples/startup_cost.rs`, which says how to run it"
    environment = {**ENVIRONMENT, "CARGO_TARGET_DIR": str(target)}
    outputs = {name: [] for name in commands}
    for name, command in list(commands.items()) * TIMES:
        run = subprocess.run(command, shell=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        # On a very busy machine a request may be sent again, for which some of them fail.
        if run.returncode == 0:
            outputs[name].append(run.stdout)
    rows = {}
    for label, name, pattern in ALONE:
        values = [float(re.search(pattern, output, re.MULTILINE)[1]) for output in outputs[name]]
        rows[label] = [shown(*spread(values)), cells[name]]
    return table("azmutex alone", ["measured", "with"], rows)


def package(name):
    """The version of a crate that the lock file of the Rust SDK's program names."""
    lock = (HERE / "rust_sdk/Cargo.lock").read_text()
    return lock.split(f'name = "{name}"\nversion = "')[1].split('"')[0]


rustc = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
print(
    f"""# Measured by `benches/peers/run`

azmutex beside what a program would use in its place: `median (least to most)` of {ROUNDS} rounds. In each, all
programs take their turns on a blob that exists, against one emulator 2 ms away, over http and with a SAS. A program
takes one lock, or {LOCKS + 1}: what the latter takes longer is that of a lock and its release. The SDKs only acquire
and release: they renew nothing and know of no loss.

{os.cpu_count()} cores, rustc {rustc}, azure_storage_blob {package("azure_storage_blob")}, azure-storage-blob \
{version("azure-storage-blob")} on Python {".".join(map(str, sys.version_info[:3]))}.

{programs()}""",
    flush=True,
)
print(
    f"""How programs wait, simulated (`tests/contention`): one that waits, and 1,000 for a blob that serves 500 requests a
second; seven seeds.

{waiting()}""",
    flush=True,
)
print(
    f"""What the commands beside it show, at most {TIMES} times each:

{alone()}""",
    end="",
)
