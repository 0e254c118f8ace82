import threading

import numpy as np
import pytest
import torch
from stores import N_SAMPLES, write_tiny_store

from einthoven import residency
from einthoven.batches import (
    READS_AHEAD,
    StreamedWindows,
    fetch_ahead,
    lead_spread,
    list_windows,
    open_windows,
    plan_epoch,
    standardize_batch,
    training_batches,
)
from einthoven.distributed import Processes, share_of
from einthoven.errors import DataError
from einthoven.inference import overlapping_starts

CPU = torch.device("cpu")
UNIT = torch.ones(12)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_tiny_store(tmp_path_factory.mktemp("w"), n_records=30, n_windows=2)


def cut_evenly(order, batch_size):
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def whole_epoch(
    store, seed=0, epoch=0, batch_size=7, crop=50, n_workers=0, source=None, choose=lambda c: c
):
    listed = list_windows(store, np.arange(20))
    source = source or open_windows(store, listed, CPU)
    plan = plan_epoch(listed, crop, seed, epoch)
    chunks = choose(cut_evenly(plan.order, batch_size))
    return list(training_batches(source, listed, plan, chunks, crop=crop, n_workers=n_workers))


def assert_same_batches(some, others):
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.signal, other.signal)
        assert torch.equal(one.n_valid, other.n_valid)
        assert np.array_equal(one.records, other.records)


class Spy:
    """A store that notes which rows are read, and by which threads."""

    def __init__(self, store):
        self.store, self.rows, self.threads = store, [], set()
        self.target_samples = store.target_samples

    def read_rows(self, shards, rows, out):
        self.rows += rows.tolist()
        self.threads.add(threading.current_thread().name)
        return self.store.read_rows(shards, rows, out)


def test_an_epoch_meets_every_record_once(store):
    records = np.concatenate([batch.records for batch in whole_epoch(store)])
    assert sorted(records) == list(range(20))


def test_what_a_record_shows_does_not_depend_on_the_batch_it_is_in(store):
    def crops(batch_size):
        return {
            int(record): batch.signal[row]
            for batch in whole_epoch(store, batch_size=batch_size)
            for row, record in enumerate(batch.records)
        }

    small, large = crops(3), crops(20)
    assert all(torch.equal(small[record], large[record]) for record in large)


def test_epochs_differ_and_the_same_epoch_comes_again(store):
    def content(epoch):
        return torch.cat([batch.signal for batch in whole_epoch(store, epoch=epoch)])

    assert torch.equal(content(1), content(1))
    assert not torch.equal(content(1), content(2))


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_batches_are_the_same_wherever_windows_are_kept(store, n_workers):
    listed = list_windows(store, np.arange(20))
    streamed = StreamedWindows(store, listed.table, CPU)
    in_memory = whole_epoch(store)
    for batch_size in (7, 2):
        assert_same_batches(
            whole_epoch(store, batch_size=batch_size, n_workers=n_workers, source=streamed),
            whole_epoch(store, batch_size=batch_size),
        )
    assert len(in_memory) == 3


@pytest.mark.parametrize(("n_workers", "n_threads"), [(0, 1), (3, 3)])
def test_streamed_windows_are_read_ahead_by_threads_of_their_own(store, n_workers, n_threads):
    spy = Spy(store)
    listed = list_windows(store, np.arange(20))
    parts = [np.array([window]) for window in range(40)]
    fetched = fetch_ahead(StreamedWindows(spy, listed.table, CPU), parts, n_workers)
    next(fetched)
    fetched.close()
    assert 1 <= len(spy.rows) <= READS_AHEAD * n_threads + 1
    assert len(spy.threads) <= n_threads
    assert threading.current_thread().name not in spy.threads


def test_an_epoch_can_begin_in_its_middle_without_reading_what_came_before(store):
    listed = list_windows(store, np.arange(20))
    spy = Spy(store)
    source = StreamedWindows(spy, listed.table, CPU)
    rest = whole_epoch(store, source=source, choose=lambda chunks: chunks[1:])
    assert_same_batches(rest, whole_epoch(store)[1:])
    assert len(spy.rows) == 13


def test_processes_share_the_records_of_each_batch(store):
    shares = [
        whole_epoch(
            store,
            choose=lambda chunks, rank=rank: [share_of(c, Processes(rank, 3)) for c in chunks],
        )
        for rank in range(3)
    ]
    for number, batch in enumerate(whole_epoch(store)):
        dealt = [share[number] for share in shares]
        for rank, share in enumerate(dealt):
            assert torch.equal(share.signal, batch.signal[rank::3])
        assert sum(len(share.records) for share in dealt) == len(batch.records)


def test_a_process_without_a_record_of_a_batch_gets_an_empty_one(store):
    (batch,) = whole_epoch(store, choose=lambda chunks: [chunks[0][:0]])
    assert batch.signal.shape == (0, 12, 50)


def test_a_shard_that_cannot_be_read_ends_the_epoch_with_its_name(tmp_path):
    store = write_tiny_store(tmp_path / "w", n_records=30)
    listed = list_windows(store, np.arange(20))
    source = StreamedWindows(store, listed.table, CPU)
    (store.records_dir / "only.npy").unlink()
    with pytest.raises(DataError, match=r"only\.npy cannot be read"):
        whole_epoch(store, source=source)


def test_what_is_kept_of_each_record_is_small(store):
    listed = list_windows(store, np.arange(20))
    plan = plan_epoch(listed, 50, 0, 0)
    kept = [*vars(plan).values(), listed.first, listed.table.shard, listed.table.row]
    assert max(array.itemsize for array in [*kept, listed.n_valid]) == 4


def test_windows_that_do_not_fit_in_memory_are_streamed(store, monkeypatch):
    monkeypatch.setattr(residency, "SHARE_OF_FREE_MEMORY", 0)
    listed = list_windows(store, np.arange(3))
    assert isinstance(open_windows(store, listed, CPU), StreamedWindows)
    assert not isinstance(open_windows(store, listed, CPU, "memory"), StreamedWindows)


def test_crop_is_a_piece_of_its_window(store):
    batch = whole_epoch(store, crop=50)[0]
    for signal, record in zip(batch.signal, batch.records, strict=True):
        windows = torch.from_numpy(store.windows(int(record)))
        pieces = windows.unfold(2, 50, 1).permute(0, 2, 1, 3)
        assert (pieces == signal).all(-1).all(-1).any()


@pytest.mark.parametrize("mode", ["dataset", "record", "lead"])
def test_standardised_flat_lead_and_padding_are_zero(mode):
    signal = torch.randint(-500, 500, (2, 12, 100), dtype=torch.int16)
    signal[0, 3] = 700
    signal[1, :, 60:] = 0
    x = standardize_batch(signal, torch.tensor([100, 60]), mode, UNIT)
    assert not x[0, 3].any()
    assert not x[1, :, 60:].any()
    assert torch.isfinite(x).all()


def test_modes_of_standardisation_keep_what_they_promise():
    signal = torch.randint(-500, 500, (4, 12, 1000), dtype=torch.int16)
    signal[:, 1] *= 3
    full = torch.full((4,), 1000)
    per_lead = standardize_batch(signal, full, "lead", UNIT)
    assert torch.allclose(per_lead.std(-1, correction=0), torch.ones(4, 12), atol=1e-4)
    per_record = standardize_batch(signal, full, "record", UNIT)
    spread = per_record.std(-1, correction=0)
    assert torch.allclose(spread.square().mean(1), torch.ones(4), atol=1e-4)
    assert torch.allclose(spread[:, 1] / spread[:, 0], torch.full((4,), 3.0), rtol=0.1)
    halved = standardize_batch(signal, full, "dataset", UNIT * 2)
    assert torch.allclose(halved * 2, standardize_batch(signal, full, "dataset", UNIT))


def test_lead_spread_is_that_of_the_listed_records_alone(store):
    listed = list_windows(store, np.arange(10))
    spread = lead_spread(open_windows(store, listed, CPU), listed)
    assert torch.equal(lead_spread(StreamedWindows(store, listed.table, CPU), listed), spread)
    windows = store.load_windows(np.arange(10)).astype(np.float64) / 1000
    centred = windows - windows.mean(-1, keepdims=True)
    expected = np.sqrt((centred**2).mean((0, 2)))
    assert np.allclose(spread.numpy(), expected, rtol=1e-5)


def test_overlapping_crops_cover_the_window_and_overlap_by_half():
    starts = overlapping_starts(np.array([N_SAMPLES]), N_SAMPLES, 50)[0]
    assert starts[0] == 0 and starts[-1] == N_SAMPLES - 50
    assert np.diff(starts).max() <= 25


def test_the_whole_window_is_one_crop():
    assert overlapping_starts(np.array([1000, 900]), 1000, 1000).tolist() == [[0], [0]]


def test_crops_of_short_records_stay_within_what_was_recorded():
    assert overlapping_starts(np.array([80, 30]), 200, 50).max(axis=1).tolist() == [30, 0]
