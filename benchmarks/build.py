"""How long it takes from code to a running container, beside Docker's own commands and other builders.

    python benchmarks/build.py [--base-image IMAGE] [--runs 5] [--cold 3] [--many 50] [--only 1,2] [--json]

Measures the bounds that the project has set itself, ours and what is beside it in turn, so that both meet the same
machine, and prints medians. Exit code 1 says that a bound does not hold. It needs a Docker engine, docker-registry
(Debian's package) and a package index; what it starts and makes is gone at the end. Everything of ours is counted in:
"to the container's start" is from the moment when the run is Pending, by the server's record, to the moment when its
container was started, by the engine's.

1. Known content, beside a bare `docker run` of the same image.
2. One changed line of code on a job with about 200 MB of dependencies.
3. Beside one `docker build` of a plain Dockerfile that copies code and then installs with pip, which is what W&B Launch
   generates. Both have a cache of pip's, empty for the cold build and kept for the change; neither has a known layer.
   Of ours the way to the container's start is measured, of the other the build alone.
4. Beside repo2docker, as far as it works here.
5. Many runs of one new job at once, with two agents.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tests' registry and system are used here, too

from build_ours import COMMAND, KEPT, PLAIN, Bench, Caused, Failed, ended, queue, running  # noqa: E402
from build_peers import NotMeasured, Plain, Repo2Docker, bare_run  # noqa: E402
from build_report import Report, times  # noqa: E402

from launch_prefect import Job, Queue  # noqa: E402

DEPENDENCIES = "numpy==2.2.6 scipy==1.15.3"
SMALL = ["six"]


def main() -> int:
    """Measure and print."""
    given = _arguments()
    base_image = given.base_image or _made_base_image()
    report = Report(f"{os.cpu_count()} cores, load {_load()} at the beginning")
    began = time.monotonic()
    with running(base_image) as bench:
        parts: dict[str, Callable[[], None]] = {
            "12": lambda: known_and_changed(bench, given, report),
            "34": lambda: cold_and_changed(bench, given, report),
            "5": lambda: many_at_once(bench, given, report),
        }
        for bounds, measure in parts.items():
            if not set(bounds) & set(given.only):
                continue
            try:
                measure()
            except Failed as error:
                report.failed(" and ".join(bounds), str(error))
    report.about += f", {_load()} at the end; {time.monotonic() - began:.0f} s in all"
    print(json.dumps(report.as_json(), indent=2)) if given.json else report.show()
    return 0 if report.all_hold else 1


def known_and_changed(bench: Bench, given: argparse.Namespace, report: Report) -> None:
    """Bounds 1 and 2, in turn, without and with a registry."""
    codes = {name: bench.new_folder(given.requirements) for name in (PLAIN, KEPT)}
    images, layers = {}, {}
    for name, code in codes.items():
        _progress(f"{name}: the first build")
        images[name] = bench.submit_and_run(code, name).image
    layers[KEPT] = bench.layers(images[KEPT])
    report.facts["MB of dependencies"] = (bench.size(images[PLAIN]) - bench.size(bench.base_image)) // 1_000_000
    bare: dict[str, list[float]] = {name: [] for name in codes}
    known: dict[str, list[Caused]] = {name: [] for name in codes}
    changed: dict[str, list[Caused]] = {name: [] for name in codes}
    sizes = []
    for turn in range(given.runs):
        for name, code in codes.items():
            bare[name].append(bare_run(bench, images[name]))
            known[name].append(bench.submit_and_run(code, name))
            code.change()
            changed[name].append(bench.submit_and_run(code, name))
            images[name] = changed[name][-1].image
        now = bench.layers(images[KEPT])
        sizes.append(sum(size for digest, size in now.items() if digest not in layers[KEPT]))
        layers[KEPT] = now
        _progress(f"{turn + 1} of {given.runs}: known, and one changed line")
    where = {PLAIN: "engine alone", KEPT: "with a registry"}
    for name in codes:
        report.known(where[name], known[name], bare[name])
    for name in codes:
        report.changed(where[name], changed[name])
    report.pushed([caused.sent for caused in changed[KEPT]], sizes)


def cold_and_changed(bench: Bench, given: argparse.Namespace, report: Report) -> None:
    """Bounds 3 and 4: each new folder is built by all in turn, and again after each of two changed lines."""
    cold, changed = times(), times()
    with _repo2docker(bench, given, report) as other:
        for turn in range(given.cold):
            code = bench.new_folder(given.requirements)
            plain = Plain(bench, code)
            job = bench.cold_job(code)
            who: list[tuple[str, Callable[[], float]]] = [
                ("ours", lambda job=job: _built(bench.run(job, PLAIN), 2)),  # type: ignore[misc]
                ("docker build", plain.build),
            ]
            again: list[tuple[str, Callable[[], float]]] = [
                ("ours", lambda code=code: _built(bench.submit_and_run(code, PLAIN), 1)),  # type: ignore[misc]
                ("docker build", plain.build),
            ]
            if other is not None:
                with_dockerfile = lambda code=code: other.build(code, own_dockerfile=True)  # noqa: E731
                who.append(("repo2docker", with_dockerfile))
                again.append(("repo2docker", with_dockerfile))
            for name, build in who[:: 1 if turn % 2 else -1]:
                cold[name].append(_undisturbed(build))
                _progress(f"{turn + 1} of {given.cold}: cold, {name}: {cold[name][-1]:.1f} s")
            for direction in (1, -1):
                code.change()
                for name, build in again[::direction]:
                    changed[name].append(_undisturbed(build))
                    _progress(f"{turn + 1} of {given.cold}: changed, {name}: {changed[name][-1]:.1f} s")
    report.beside_docker_build(cold, changed)
    report.beside_repo2docker(cold, changed)


@contextmanager
def _repo2docker(bench: Bench, given: argparse.Namespace, report: Report) -> Iterator[Repo2Docker | None]:
    """repo2docker, where it works; what does not is noted."""
    if "4" not in given.only:
        yield None
        return
    try:
        other = Repo2Docker(bench, given.repo2docker_base)
    except NotMeasured as error:
        report.missing.append(f"repo2docker cannot be installed: {error}")
        yield None
        return
    report.facts["repo2docker"] = other.version
    code = bench.new_folder(given.requirements)
    try:
        took, again = other.build(code, own_dockerfile=False), 0.0
        code.change()
        again = other.build(code, own_dockerfile=False)
        report.facts["repo2docker, its own Dockerfile"] = f"cold {took:.1f} s, one changed line {again:.1f} s"
    except NotMeasured as error:
        report.missing.append(f"repo2docker {other.version} with a Dockerfile of its own making: {error}")
    try:
        other.build(code, own_dockerfile=True)
    except NotMeasured as error:
        report.missing.append(f"repo2docker {other.version} with the plain Dockerfile: {error}")
        yield None
    else:
        yield other


def many_at_once(bench: Bench, given: argparse.Namespace, report: Report) -> None:
    """Bound 5: two agents with state of their own each, on one engine; without and with a registry."""
    builders: dict[str, dict[str, str]] = {"many-plain": {}, "many-kept": {"registry": f"{bench.proxy.address}/many"}}
    for name, builder in builders.items():
        said = queue(name, concurrency=given.many, **builder)
        Queue.create(name, target="docker", concurrency=given.many, builder=said["builder"])
    # Each takes at most half of them: both want the image.
    words = ["--max-jobs", str((given.many + 1) // 2), *(word for name in builders for word in ("-q", name))]
    system = bench.system
    homes = [bench.folder / f"home-{number}" for number in (1, 2)]
    envs = [
        {**bench.env, "LAUNCH_HOME": str(home), "PREFECT_HOME": str(home), "PREFECT_API_URL": system.api_url}
        for home in homes
    ]
    with (
        system.background("agent", *words, "--name", "one", env=envs[0]) as one,
        system.background("agent", *words, "--name", "two", env=envs[1]) as two,
    ):
        for agent in (one, two):
            agent.says("Serving", 60)
        for name, where in zip(builders, ("engine alone", "with a registry"), strict=True):
            code = bench.new_folder(SMALL)
            job = Job.from_code(code.path, entrypoint=COMMAND)
            line = Queue(name).pause()
            runs = [line.submit(job) for _ in range(given.many)]
            before, began = len(bench.calls.built()), time.monotonic()
            line.resume()
            ended(runs)
            seconds = time.monotonic() - began
            agents = {str(run.facts["agent"]) for run in runs}
            report.many(where, len(runs), agents, bench.calls.built()[before:], seconds)
            _progress(f"{len(runs)} runs at once, {where}")


def _undisturbed(build: Callable[[], float]) -> float:
    """What a build takes when the machine is not still writing down what the one before it has made."""
    os.sync()
    return build()


def _built(caused: Caused, count: int) -> float:
    """Its seconds, if it was the build that was meant."""
    if len(caused.built) != count:
        raise Failed(f"{count} images were to be built, and {len(caused.built)} were: {caused.built}")
    return caused.seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-image", help="what all images stand on (default: one made of this machine's Python)")
    parser.add_argument("--runs", type=int, default=5, help="how often known and changed are measured (default: 5)")
    parser.add_argument("--cold", type=int, default=3, help="how often cold builds are measured (default: 3)")
    parser.add_argument("--many", type=int, default=50, help="how many runs at once (default: 50)")
    parser.add_argument("--only", default="1,2,3,4,5", help="bounds to measure (default: 1,2,3,4,5)")
    parser.add_argument("--requirements", default=DEPENDENCIES, help=f"dependencies (default: {DEPENDENCIES})")
    parser.add_argument("--repo2docker-base", help="base image of repo2docker's Dockerfiles (default: its own)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    given.only = given.only.split(",")
    given.requirements = given.requirements.split()
    return given


def _made_base_image() -> str:
    """An image of this machine's Python, made where it is not there."""
    script = ROOT / "tests" / "testbed" / "base-image.sh"
    done = subprocess.run(
        [script], env=os.environ | {"PYTHON": sys.executable}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit("No base image could be made; name one with --base-image.")
    return done.stdout.strip()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
