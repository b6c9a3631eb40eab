"""The suite as a ReFrame test: one per algorithm, with its figures of merit.

    reframe -C SITE.py -c contrib/reframe/dsgd_bench.py -r

ReFrame's launcher starts the ranks, and the study runs on those it finds; where the
launcher is "local", the suite starts them. Change variables with ``-S``, such as
``-S study=/path/to/study.toml -S python=/path/to/env/bin/python``.
"""

from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import deferrable, parameter, run_before
from reframe.core.builtins import sanity_function, variable

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke.toml"
METRICS = {"time_to_target": "s", "time_per_epoch": "s", "loss": "1", "waiting": "1"}


@rfm.simple_test
class DsgdBench(rfm.RunOnlyRegressionTest):
    """Run a study with one algorithm in place of its own."""

    algorithm = parameter(["allreduce", "adpsgd", "sgp"])
    study = variable(str, value=str(SMOKE))
    python = variable(str, value="python3")
    descr = "Distributed SGD: time to target"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    num_tasks = 4
    sourcesdir = None

    @run_before("run")
    def set_command(self):
        self.executable = f"{self.python} -P -m mpi4py -m dsgd_bench"
        self.executable_opts = ["run", self.study, "--results", "results"]
        self.executable_opts += ["--set", f"study.ranks={self.num_tasks}"]
        chosen = f'algorithm=[{{kind="{self.algorithm}"}}]'
        self.executable_opts += ["--set", f"'{chosen}'"]

    @sanity_function
    def results_are_valid(self):
        return sn.assert_found(r"(?m)^DSGD_BENCH_RESULT OK id=\w+$", self.stdout)

    @run_before("performance")
    def set_figures_of_merit(self):
        for name, unit in METRICS.items():
            found = sn.make_performance_function(self.middle(name), unit)
            self.perf_variables[name] = found

    @deferrable
    def middle(self, metric):
        """Return the (upper) median of a metric over the study's trials."""
        pattern = rf"(?m)^FOM {metric}\[\S+\] (\S+) \S+$"
        values = sorted(sn.evaluate(sn.extractall(pattern, self.stdout, 1, float)))
        return values[len(values) // 2]
