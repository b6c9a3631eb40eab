"""Promises about data in files: true formats are read, broken ones refused by name."""

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsgd_bench import cli
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import Batches, catalog, data, fetch, formats
from dsgd_bench.problems.catalog import CIFAR_FOLDER, CIFAR_NAMES, IDX_NAMES, File
from dsgd_bench.problems.logistic import Logistic
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.problems.softmax import Softmax

Contents = dict[str, bytes]

RANDOM = np.random.default_rng(0)


def idx(values: np.ndarray) -> bytes:
    """Write unsigned bytes as the description of MNIST says."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def images(samples: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = RANDOM.integers(256, size=(samples, 4, 3))
    pixels.flat[:2] = 0, 255
    return pixels, np.arange(samples) % 10


def small_mnist() -> tuple[Contents, list[np.ndarray]]:
    arrays = [*images(30), *images(12)]
    return dict(zip(IDX_NAMES, map(idx, arrays), strict=True)), arrays


def small_cifar() -> tuple[Contents, list[np.ndarray]]:
    """Write six files of five images each; return pixels and labels of each too."""
    contents, arrays = {}, []
    for name in CIFAR_NAMES:
        labels = RANDOM.integers(10, size=(5, 1))
        pixels = RANDOM.integers(256, size=(5, 3072))
        contents[name] = np.hstack([labels, pixels]).astype(np.uint8).tobytes()
        arrays += [pixels, labels[:, 0]]
    return contents, arrays


def tar(contents: Contents) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        folder = tarfile.TarInfo(CIFAR_FOLDER)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in {"readme.html": b"by", **contents}.items():
            member = tarfile.TarInfo(f"{CIFAR_FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def pack(name: str, contents: Contents) -> Contents:
    if name == "cifar-10":
        return {"cifar-10-binary.tar.gz": tar(contents)}
    return {f"{file}.gz": gzip.compress(content) for file, content in contents.items()}


def described(contents: Contents) -> tuple[File, ...]:
    return tuple(
        File(name, hashlib.md5(content).hexdigest(), len(content))
        for name, content in contents.items()
    )


Publish = Callable[..., None]


@pytest.fixture(autouse=True)
def no_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look for no data sets that a package of this machine has brought."""
    monkeypatch.setattr(catalog, "SHARED", tmp_path / "shared")


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Return what replaces a published data set by a small one."""

    def published(name: str, contents: Contents, packed: Contents, **more: Any) -> None:
        changed = {"packed": described(packed), "files": described(contents), **more}
        known = replace(catalog.DATA_SETS[name], **changed)
        monkeypatch.setitem(catalog.DATA_SETS, name, known)
        data.published.cache_clear()

    return published


def write(place: Path, contents: Contents) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (place / name).write_bytes(content)


def expect(problem: Any, training: list[np.ndarray], held: list[np.ndarray]) -> None:
    found = problem._data
    for inputs, labels, pixels, classes in (
        (found.inputs, found.labels, *training),
        (found.held_inputs, found.held_labels, *held),
    ):
        flat = pixels.reshape(len(pixels), -1)
        # one division in the element type: correct to half a unit in the last place
        np.testing.assert_allclose(inputs, flat / 255, rtol=1e-7)
        np.testing.assert_array_equal(labels, classes)
        assert inputs.dtype == problem.dtype
        assert labels.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read_packed_or_not(
    name: str, packed: bool, dtype: str, tmp_path: Path, publish: Publish
) -> None:
    contents, (*training, held, held_labels) = small_mnist()
    archives = pack(name, contents)
    publish(name, contents, archives)
    write(tmp_path / name, archives if packed else contents)
    problem = Softmax(data=name, folder=str(tmp_path), dtype=dtype)
    expect(problem, training, [held, held_labels])
    assert problem.dimension == (12 + 1) * 10
    assert problem.samples == 30
    assert problem._data.inputs.min() == 0.0
    assert problem._data.inputs.max() == 1.0


@pytest.mark.parametrize("form", ["tar.gz", "folder", "subfolder"])
def test_cifar_is_read_packed_or_not(
    form: str, tmp_path: Path, publish: Publish
) -> None:
    contents, arrays = small_cifar()
    archives = pack("cifar-10", contents)
    publish("cifar-10", contents, archives)
    place = tmp_path / "cifar-10"
    write(place, archives if form == "tar.gz" else {})
    write(place / (CIFAR_FOLDER if form == "subfolder" else ""), contents)
    if form == "tar.gz":
        for file in contents:
            (place / file).unlink()
    problem = MLP(data="cifar-10", folder=str(tmp_path), hidden=(3,))
    training = [np.concatenate(arrays[k:10:2]) for k in (0, 1)]
    expect(problem, training, arrays[10:])
    assert problem.dimension == 3072 * 3 + 3 + 3 * 10 + 10


def test_a_data_set_takes_as_many_bytes_as_it_says(
    tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_mnist()
    publish("mnist", contents, pack("mnist", contents))
    write(tmp_path / "mnist", contents)
    for dtype, itemsize in (("float32", 4), ("float64", 8)):
        problem = Softmax(data="mnist", folder=str(tmp_path), dtype=dtype)
        assert problem.data_bytes == (30 + 12) * (12 * itemsize + 8)


def test_a_data_set_is_read_once_for_all_seeds(
    tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_mnist()
    publish("mnist", contents, pack("mnist", contents))
    write(tmp_path / "mnist", contents)
    one, other = (MLP(data="mnist", folder=str(tmp_path), seed=seed) for seed in (0, 1))
    assert one._data is other._data
    with pytest.raises(ValueError, match="read-only"):
        one._data.inputs[0] = 1  # nobody can spoil what is shared


def shortened(content: bytes) -> bytes:
    return content[:-1]


def corrupted(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def extended(content: bytes) -> bytes:
    return content + b"\0"


@pytest.mark.parametrize("harm", [shortened, corrupted, extended])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("name", ["mnist", "cifar-10"])
def test_a_file_that_is_not_the_published_one_is_refused(
    name: str, packed: bool, harm: Any, tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_mnist() if name == "mnist" else small_cifar()
    archives = pack(name, contents)
    publish(name, contents, archives)
    file = list(contents)[-1]
    broken = harm(contents[file])
    wrong = {**contents, file: broken}
    there = pack(name, wrong) if packed else wrong
    write(tmp_path / name, there)
    with pytest.raises(ConfigError) as caught:
        Softmax(data=name, folder=str(tmp_path))
    said = str(caught.value)
    for part in (
        str(tmp_path / name / list(there)[-1]),
        file,
        hashlib.md5(broken).hexdigest(),
        f"{len(contents[file])} bytes and {hashlib.md5(contents[file]).hexdigest()}",
        f"dsgd-bench data fetch {name} --folder {tmp_path}",
        f"download {', '.join(archives)} from {catalog.DATA_SETS[name].url}",
    ):
        assert part in said
    assert "\n" not in said


def repacked(name: str, contents: Contents) -> Contents:
    """Pack as somebody else does: another time in the header, and less effort."""
    if name == "cifar-10":
        archive = gzip.decompress(tar(contents))
        return {"cifar-10-binary.tar.gz": gzip.compress(archive, 1, mtime=1)}
    return {f"{k}.gz": gzip.compress(v, 1, mtime=1) for k, v in contents.items()}


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar-10"])
def test_what_counts_is_the_content_and_not_the_gzip_around_it(
    name: str, tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_cifar() if name == "cifar-10" else small_mnist()
    publish(name, contents, pack(name, contents))
    others = repacked(name, contents)
    assert others != pack(name, contents)
    write(tmp_path / name, others)
    assert Softmax(data=name, folder=str(tmp_path)).samples in (25, 30)


def test_the_folder_of_a_package_is_found_and_the_users_own_comes_first(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "fashion-mnist"
    contents, _ = small_mnist()
    publish(name, contents, pack(name, contents))
    write(catalog.SHARED / name, repacked(name, contents))
    own = tmp_path / "data"
    assert Softmax(data=name, folder=str(own)).samples == 30
    cli.main(["data", "fetch", name, "--folder", str(own)])  # no network is asked
    assert str(catalog.SHARED / name) in capsys.readouterr().out
    write(own / name, {IDX_NAMES[0]: b""})
    data.published.cache_clear()
    with pytest.raises(ConfigError, match="data/fashion-mnist"):
        Softmax(data=name, folder=str(own))


def test_a_bomb_in_place_of_a_data_set_is_not_unpacked(
    tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_mnist()
    publish("mnist", contents, pack("mnist", contents))
    bomb = {IDX_NAMES[0]: bytes(100 * 2**20)}
    write(tmp_path / "mnist", pack("mnist", {**contents, **bomb}))
    most = len(contents[IDX_NAMES[0]]) + catalog.SPARE
    with pytest.raises(ConfigError, match=f"has {most} bytes"):
        Softmax(data="mnist", folder=str(tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar-10"])
def test_a_missing_data_set_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Softmax(data=name, folder=str(tmp_path))
    said = str(caught.value)
    assert f"{tmp_path / name} has no " in said
    assert f"dsgd-bench data fetch {name} --folder {tmp_path}" in said
    assert catalog.DATA_SETS[name].url in said
    assert "\n" not in said


def test_one_missing_file_of_several_is_named(tmp_path: Path, publish: Publish) -> None:
    contents, _ = small_mnist()
    archives = pack("mnist", contents)
    publish("mnist", contents, archives)
    del archives[f"{IDX_NAMES[3]}.gz"]
    write(tmp_path / "mnist", archives)
    with pytest.raises(ConfigError, match=f"has no {IDX_NAMES[3]}, packed or"):
        Softmax(data="mnist", folder=str(tmp_path))
    write(tmp_path / "mnist", {IDX_NAMES[3]: contents[IDX_NAMES[3]]})
    assert Softmax(data="mnist", folder=str(tmp_path)).samples == 30


PIXELS, LABELS = np.zeros((3, 4, 3)), np.array([0, 9, 1])

BROKEN_IDX = [
    (idx(LABELS), idx(LABELS), "i begins with 0x00000801, expected 0x00000803"),
    (idx(PIXELS), idx(PIXELS), "l begins with 0x00000803, expected 0x00000801"),
    (b"\x1f\x8b\x08", idx(LABELS), "i begins with 0x1f8b08, expected"),
    (idx(PIXELS)[:9], idx(LABELS), "i ends within its header of 16 bytes"),
    (shortened(idx(PIXELS)), idx(LABELS), "i holds 35 .*expected 36 for 3 x 4 x 3"),
    (extended(idx(PIXELS)), idx(LABELS), "i holds 37 .*expected 36"),
    (idx(PIXELS), shortened(idx(LABELS)), "l holds 2 .*expected 3 for 3"),
    (idx(PIXELS), idx(LABELS[:2]), "l has 2 labels, expected 3"),
    (idx(PIXELS), idx(LABELS + 1), "l has a label 10, expected labels from 0 to 9"),
]


@pytest.mark.parametrize(("pixels", "labels", "said"), BROKEN_IDX)
def test_an_idx_file_that_cannot_be_is_refused(
    pixels: bytes, labels: bytes, said: str
) -> None:
    with pytest.raises(formats.FormatError, match=said):
        formats.idx_images(("i", pixels), ("l", labels))


def test_images_of_two_sizes_are_refused(tmp_path: Path, publish: Publish) -> None:
    contents, _ = small_mnist()
    contents[IDX_NAMES[2]] = idx(np.zeros((12, 2, 2)))
    publish("mnist", contents, {})
    write(tmp_path / "mnist", contents)
    with pytest.raises(ConfigError, match="4 pixels, expected 12"):
        Softmax(data="mnist", folder=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "c is 0 bytes long, expected a multiple of 3073"),
        (bytes(3072), "c is 3072 bytes long"),
        (bytes(2 * 3073 + 1), "c is 6147 bytes long"),
        (bytes([10]) + bytes(3072), "c has a label 10"),
    ],
)
def test_a_cifar_file_that_cannot_be_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(formats.FormatError, match=said):
        formats.cifar(content, "c")


@pytest.mark.parametrize("name", ["mnist", "cifar-10"])
@pytest.mark.parametrize(
    "harm", [lambda packed: packed[: len(packed) // 2], lambda _: b"no archive"]
)
def test_what_cannot_be_unpacked_is_refused(
    name: str, harm: Any, tmp_path: Path, publish: Publish
) -> None:
    contents, _ = small_mnist() if name == "mnist" else small_cifar()
    archives = pack(name, contents)
    file = next(iter(archives))
    archives[file] = harm(archives[file])
    publish(name, contents, archives)  # the checksum fits, so the reader has to see it
    write(tmp_path / name, archives)
    with pytest.raises(ConfigError, match=rf"{file} cannot be unpacked \("):
        Softmax(data=name, folder=str(tmp_path))


def test_the_published_checksums_are_whole_and_of_different_files() -> None:
    for data_set in catalog.DATA_SETS.values():
        files = [*data_set.packed, *data_set.files]
        assert all(len(bytes.fromhex(file.md5)) == 16 for file in files)
        assert len({file.md5 for file in files}) == len(files)
        assert all(file.nbytes > 0 for file in files)
        assert data_set.url.endswith("/")


def test_the_document_states_what_the_program_checks() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    for data_set in catalog.DATA_SETS.values():
        assert f"| `{data_set.name}` | {data_set.url} |" in text
        for file in data_set.packed:
            assert f"| {file.name} | {file.nbytes} | {file.md5} |" in text


def libsvm(path: Path, rows: np.ndarray, labels: Any) -> str:
    lines = [
        " ".join([f"{label:+d}", *(f"{k + 1}:{v!r}" for k, v in enumerate(row) if v)])
        for label, row in zip(labels, rows.tolist(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def sparse_rows(samples: int = 40, features: int = 6) -> np.ndarray:
    rows = RANDOM.standard_normal((samples, features))
    rows[RANDOM.random(rows.shape) < 0.5] = 0
    rows[0] = 1  # the last feature is there
    return rows


@pytest.mark.parametrize("pair", [(-1, 1), (0, 1), (1, 2), (3, 8)])
def test_a_libsvm_file_is_read_and_its_two_labels_become_signs(
    pair: tuple[int, int], tmp_path: Path
) -> None:
    rows = sparse_rows()
    signs = np.where(RANDOM.random(len(rows)) < 0.5, -1, 1)
    file = libsvm(tmp_path / "small", rows, np.where(signs > 0, pair[1], pair[0]))
    problem = Logistic(file=file, dtype="float64")
    found = problem._data
    assert problem.samples == 34, "a sixth is held out"
    assert problem.dimension == 7
    inputs = np.vstack([found.inputs, found.held_inputs])
    classes = np.concatenate([found.labels, found.held_labels])
    got = sorted(map(tuple, np.column_stack([inputs, 2 * classes - 1])))
    assert got == sorted(map(tuple, np.column_stack([rows, signs])))
    np.testing.assert_array_equal(problem._signs, 2 * found.labels - 1)
    held = len(found.held_inputs)
    nbytes = 8 * (34 * 6 + 34 + held * 6 + held)  # inputs and labels, both parts
    assert problem.data_bytes == nbytes + 8 * 34


def test_the_split_of_a_libsvm_file_is_always_the_same(tmp_path: Path) -> None:
    rows = sparse_rows()
    file = libsvm(tmp_path / "small", rows, np.arange(len(rows)) % 2)
    one = Logistic(file=file, seed=0)
    data.libsvm.cache_clear()
    other = Logistic(file=file, seed=5)
    assert one._data is not other._data
    np.testing.assert_array_equal(one._data.inputs, other._data.inputs)


def test_a_packed_libsvm_file_is_read_too(tmp_path: Path) -> None:
    plain = libsvm(tmp_path / "small", sparse_rows(), np.arange(40) % 2)
    packed = tmp_path / "small.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    one, other = Logistic(file=plain), Logistic(file=str(packed))
    np.testing.assert_array_equal(one._data.inputs, other._data.inputs)


def test_softmax_reads_a_libsvm_file_of_many_classes_and_logistic_says_so(
    tmp_path: Path,
) -> None:
    file = libsvm(tmp_path / "three", sparse_rows(), np.arange(40) % 3 + 1)
    problem = Softmax(file=file)
    assert problem.dimension == (6 + 1) * 3
    assert set(problem.labels.tolist()) == {0, 1, 2}
    with pytest.raises(ConfigError, match=r"3 classes.*use softmax"):
        Logistic(file=file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "LIBSVM|class"),
        (b"+1 1:0.5 2:\n-1 1:1\n", "cannot be read as LIBSVM"),
        (b"+1 1:0.5 2:x\n-1 1:1\n", "cannot be read as LIBSVM"),
        (b"\x00\x01\xff", "cannot be read as LIBSVM"),
        (b"+1 1:1\n+1 1:2\n", "has 1 class, expected two or more"),
        (b"0.25 1:1\n0.5 1:2\n", "labels that are not whole numbers"),
        (b"+1 1:nan\n-1 1:2\n", "values that are not finite"),
    ],
)
def test_a_file_that_is_not_libsvm_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        Logistic(file=str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "digits", ["2147483648", "4294967297", "9" * 20, "1" * 5000], ids=len
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_a_libsvm_index_that_is_too_large_is_named_with_file_and_line(
    digits: str, pack: Any, tmp_path: Path
) -> None:
    path = tmp_path / ("wide.gz" if pack is gzip.compress else "wide")
    path.write_bytes(pack(f"+1 1:1 # {10**30}:1\n-1 2:0.5 {digits}:1\n".encode()))
    with pytest.raises(ConfigError) as caught:
        Logistic(file=str(path))
    said = str(caught.value)
    assert f"{path} has the index {digits[:20]}" in said
    assert "at line 2, and the largest is 2147483647" in said
    assert len(said) < 400


def test_a_libsvm_file_that_is_no_file_is_not_read() -> None:
    with pytest.raises(ConfigError, match="/dev/zero is no regular file"):
        Logistic(file="/dev/zero")


def test_a_truncated_packed_libsvm_file_is_refused(tmp_path: Path) -> None:
    plain = libsvm(tmp_path / "small", sparse_rows(), np.arange(40) % 2)
    packed = tmp_path / "small.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes())[:-20])
    with pytest.raises(ConfigError, match=r"small\.gz cannot be read as LIBSVM"):
        Logistic(file=str(packed))


def test_a_missing_libsvm_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing does not exist; give the problem"):
        Logistic(file=str(tmp_path / "nothing"))


def test_sparse_data_too_large_for_dense_rows_are_refused_with_the_figure(
    tmp_path: Path,
) -> None:
    path = tmp_path / "wide"
    lines = [f"{(-1) ** k:+d} {2**20}:1" for k in range(1024)]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"1024 samples of 1048576 .* 4 GiB .* 2 GiB"):
        Logistic(file=str(path))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (partial(Logistic, data="mnist"), "digits, generated.*softmax"),
        (partial(Logistic, file="f", data="generated"), "two sources"),
        (partial(Softmax, file="f", samples=9), "describe generated data"),
        (partial(Softmax, folder="elsewhere"), "folder .*leave it out"),
        (partial(Softmax, data="mnist", classes=3), "describe generated data"),
        (partial(MLP, data="minst"), "digits, generated, mnist, fashion-mnist, cifar"),
    ],
)
def test_settings_without_effect_are_refused(build: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()


def shards_of(problem: Logistic, shards_by: str) -> list[Batches]:
    """Return the batches of four ranks."""
    return [
        Batches(problem, ranks=4, rank=rank, batch=32, shards_by=shards_by, alpha=0.2)
        for rank in range(4)
    ]


def test_an_epoch_of_even_shards_has_every_sample_once() -> None:
    problem = Logistic()
    shards = shards_of(problem, "even")
    seen = [s.indices(k) for s in shards for k in range(s.rounds)]
    assert sorted(np.concatenate(seen)) == list(range(problem.samples))


def test_every_sample_of_a_logistic_problem_goes_to_one_rank_unevenly() -> None:
    problem = Logistic()
    parts = [s._shard for s in shards_of(problem, "dirichlet")]
    assert sorted(np.concatenate(parts)) == list(range(problem.samples))
    # an even split has about 0.5 everywhere, to 0.03 (one standard deviation)
    odd = [problem.labels[part].mean() for part in parts]
    assert max(odd) - min(odd) > 0.3


def test_logistic_is_judged_by_its_formula() -> None:
    problem = Logistic(dtype="float64", regularization=0.01)
    known = data.digits(np.dtype(np.float64))
    x = 0.1 * np.random.default_rng(1).standard_normal(problem.dimension)
    y = np.where(known.labels % 2 == 1, 1, -1)
    margins = y * (known.inputs @ x[:-1] + x[-1])
    loss = np.log(1 + np.exp(-margins)).mean() + 0.005 * x @ x
    guesses = known.held_inputs @ x[:-1] + x[-1] > 0
    judgment = problem.evaluate(x)
    assert judgment.loss == pytest.approx(loss, rel=1e-12)
    assert judgment.accuracy == (guesses == (known.held_labels % 2 == 1)).mean()
    start = problem.evaluate(problem.initial())
    assert start.loss == pytest.approx(np.log(2), rel=1e-12)


def test_margins_of_any_size_neither_overflow_nor_lose_the_answer() -> None:
    problem = Logistic(regularization=0.0, data="generated", samples=50)
    x = problem.initial()
    x[-1] = 1e15  # every sample of the second class is right, of the first all wrong
    g = np.empty_like(x)
    with np.errstate(all="raise"):
        loss = problem.gradient(x, np.arange(50), g)
    wrong = np.mean(problem.labels == 0)
    assert loss == pytest.approx(1e15 * wrong, rel=1e-6)
    assert g[-1] == pytest.approx(wrong, rel=1e-6)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Return the address and the folder of a web server on this computer."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/", folder
        web.shutdown()
        thread.join()


@pytest.fixture
def offered(
    server: tuple[str, Path], publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Contents]:
    """Return what puts a small data set on the web server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(server[1].parent)

    def offer(name: str) -> Contents:
        contents, _ = small_mnist() if name == "mnist" else small_cifar()
        archives = pack(name, contents)
        publish(name, contents, archives, url=server[0])
        write(server[1], archives)
        return archives

    return offer


@pytest.mark.parametrize("name", ["mnist", "cifar-10"])
def test_fetch_brings_a_data_set_that_problems_can_use(
    name: str, offered: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = offered(name)
    assert cli.main(["data", "list"]) == 0
    assert "intact" not in capsys.readouterr().out
    assert cli.main(["data", "fetch", name]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{name} is complete in data/{name}\n"
    assert all(f"downloading {file}, " in printed.err for file in archives)
    assert Softmax(data=name).samples in (30, 25)
    assert {path.name for path in Path("data", name).iterdir()} == set(archives)
    assert cli.main(["data", "list"]) == 0
    assert capsys.readouterr().out.count("intact") == 1


def test_fetch_downloads_only_what_is_missing_or_broken(
    offered: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    archives = offered("mnist")
    missing, broken, *intact = archives
    write(Path("here/mnist"), {file: archives[file] for file in intact})
    write(Path("here/mnist"), {broken: b"half of it"})
    assert cli.main(["data", "list", "--folder", "here"]) == 0
    assert "10 bytes" in capsys.readouterr().out
    assert cli.main(["data", "fetch", "mnist", "--folder", "here"]) == 0
    said = capsys.readouterr().err
    assert {file for file in archives if file in said} == {missing, broken}
    assert Path("here/mnist", broken).read_bytes() == archives[broken]


@pytest.mark.parametrize("harm", [shortened, corrupted])
def test_a_broken_download_leaves_nothing_behind(
    harm: Any,
    offered: Any,
    server: tuple[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    archives = offered("cifar-10")
    ((name, content),) = archives.items()
    write(server[1], {name: harm(content)})
    assert cli.main(["data", "fetch", "cifar-10"]) == cli.REFUSED
    said = capsys.readouterr().err
    assert "hash" in said
    assert "Traceback" not in said
    assert not list(Path("data/cifar-10").iterdir())


def test_a_file_that_the_server_does_not_have_is_said_in_one_sentence(
    offered: Any, server: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (name,) = offered("cifar-10")
    (server[1] / name).unlink()
    assert cli.main(["data", "fetch", "cifar-10"]) == cli.REFUSED
    assert f"{server[0]}{name} could not be downloaded (404" in capsys.readouterr().err


def test_without_a_network_fetch_says_how_to_get_the_files_by_hand(
    offered: Any, capsys: pytest.CaptureFixture[str], publish: Publish
) -> None:
    archives = offered("mnist")
    nowhere = "http://127.0.0.1:9/"  # the port of discard: nobody listens
    publish("mnist", {}, archives, url=nowhere)
    assert cli.main(["data", "fetch", "mnist"]) == cli.REFUSED
    said = capsys.readouterr().err
    assert f"{nowhere}{next(iter(archives))} could not be downloaded (" in said
    assert f"download {', '.join(archives)} from {nowhere} into data/mnist" in said
    assert said.count("\n") == 1
    assert not list(Path("data/mnist").iterdir())


def test_without_pooch_fetch_says_how_to_do_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ConfigError, match=r"pip install pooch.*or download train-im"):
        fetch.fetch(catalog.find("mnist"), tmp_path, lambda _: None)


def test_an_unknown_data_set_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["data", "fetch", "imagenet"]) == cli.REFUSED
    assert "mnist, fashion-mnist, cifar-10" in capsys.readouterr().err


def test_a_rank_that_misses_data_does_not_reach_for_the_network() -> None:
    script = """
import sys
NETWORK = {"pooch", "requests", "dsgd_bench.problems.fetch"}
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.softmax import Softmax
import dsgd_bench.study.rank_process, dsgd_bench.trial.worker
try:
    Softmax(data="mnist", folder="/nowhere")
except ConfigError:
    sys.exit(bool(NETWORK & set(sys.modules)))
sys.exit(2)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


STUDY = """
[study]
ranks = 2
budget = { steps = 3 }
[problem]
kind = "softmax"
data = "mnist"
[[algorithm]]
kind = "allreduce"
"""


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_study_without_its_data_is_refused_before_anything_is_launched(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY)
    assert cli.main([verb, "study.toml"]) == cli.REFUSED
    assert "dsgd-bench data fetch mnist --folder data" in capsys.readouterr().err
    assert not Path("results").exists()
