# The suite as a Ramble application: this file as applications/dsgd-bench/
# application.py in a Ramble repository (`ramble repo create`, `ramble repo add`), then
#
#   ramble workspace analyze
#
# after `ramble workspace setup` and `ramble on`. Every trial is a context of its own.
from ramble.appkit import *


class DsgdBench(ExecutableApplication):
    """Which distributed SGD algorithm reaches the target first on this cluster?"""

    name = "dsgd-bench"

    tags("distributed-training", "mpi", "machine-learning")

    # The ranks that Ramble's mpi_command starts run the study together.
    executable(
        "run",
        "{python} -P -m mpi4py -m dsgd_bench run {study} --results {results}"
        " --set study.ranks={n_ranks} {more}",
        use_mpi=True,
    )

    workload("study", executables=["run"])

    for name, default, description in (
        ("study", "configs/smoke.toml", "Study file"),
        ("python", "python3", "Interpreter that has dsgd_bench"),
        ("results", "{experiment_run_dir}/results", "Results, shared by all nodes"),
        ("more", "", "More options, such as --set study.repeats=6"),
    ):
        workload_variable(
            name, default=default, description=description, workloads=["study"]
        )

    trial = r"^FOM \w+\[(?P<trial>\S+)\] \S+ \S+$"
    figure_of_merit_context("trial", regex=trial, output_format="{trial}")

    for metric, unit in (
        ("time_to_target", "s"),
        ("time_per_epoch", "s"),
        ("loss", "1"),
        ("waiting", "1"),
    ):
        figure_of_merit(
            metric,
            fom_regex=rf"^FOM {metric}\[\S+\] (?P<value>\S+) \S+$",
            group_name="value",
            units=unit,
            contexts=["trial"],
        )

    success_criteria(
        "valid",
        mode="string",
        match=r"^DSGD_BENCH_RESULT OK id=\w+$",
        file="{log_file}",
    )
