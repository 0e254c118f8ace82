"""How much memory and disk a run will need, before it is started.

Memory is counted, not guessed: the model is built and two tiny batches are sent through it, in the
run's own arithmetic; what they leave behind for the backward pass grows with the batch, and so does
the estimate. What no count reaches (the libraries' own work space, holes) is an allowance. On a CPU
seven models took between 0.8 and 1.2 times the estimate; on a GPU it has not been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from einthoven.labels.sets import load_label_set
from einthoven.models.registry import build_model
from einthoven.objective import summed_loss
from einthoven.records import LEADS
from einthoven.resources import MEBIBYTE
from einthoven.runs import arithmetic, has_one_label
from einthoven.settings import Settings

BYTES_PER_WEIGHT = 4
# Gradients, and AdamW's two moments.
COPIES_WHILE_TRAINING = 3
# The backward pass holds the gradients of a layer's output and input beside all that was kept.
LAYERS_IN_HAND = 2
# What a batch takes in truth, of what was counted: memory in use has holes. Measured on CPUs.
HOLES = 1.25
# Work space of convolutions and what lies between blocks in use; on a GPU that of cuDNN and cuBLAS.
WORK_SPACE_BYTES = 128 * MEBIBYTE

# A worker of `einthoven prepare` with its libraries and a chunk's records: 185 MiB were measured.
BYTES_PER_WORKER = 256 * MEBIBYTE
# Of the manifest, splits and records' names, in a process that trains.
BYTES_PER_KNOWN_RECORD = 2048
# Facts and sketches that lie beside a record's windows, and its lines in the tables.
BYTES_BESIDE_WINDOW = 2048
# Figures, report, tracking and predictions of a run.
RUN_FILES_BYTES = 100 * MEBIBYTE
# Weights in a save (weights, average, two moments, the best with its raw weights), and how many
# saves there are at once: the last, the one before, one being written, and the best model's.
WEIGHTS_PER_SAVE, SAVES_AT_ONCE = 6, 4

SMALL_BATCH, LARGER_BATCH = 2, 4


@dataclass(frozen=True)
class TrainingNeed:
    """Bytes that training takes beside the windows.

    Attributes:
        state: weights, gradients, optimizer and average.
        per_record: of a batch, for each of its records.
        constant: of a batch of any size, with the allowance for work space.
        weights: one copy of the weights.
    """

    state: int
    per_record: int
    constant: int
    weights: int

    def of_batch(self, batch_size: int) -> int:
        """All together for batches of this many records."""
        return self.state + self.constant + self.per_record * batch_size

    def batch_that_fits(self, room: int) -> int:
        """The largest power of two of records for which there is room; 0 for none."""
        fits = (room - self.state - self.constant) // max(self.per_record, 1)
        return 1 << (int(fits).bit_length() - 1) if fits > 0 else 0


def training_need(settings: Settings, device: torch.device) -> TrainingNeed:
    """What a run of these settings takes on this device, beside the windows."""
    label_set = load_label_set(settings.label_set)
    # Whoever calls draws from torch's generator too.
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            settings.model_name, n_leads=len(LEADS), n_classes=len(label_set.labels)
        )
        dtype = arithmetic(settings, device)
        small, larger = (
            kept_bytes(model, n, settings.crop, dtype, has_one_label(settings))
            for n in (SMALL_BATCH, LARGER_BATCH)
        )
    n_fitted = sum(p.numel() for p in model.parameters())
    n_values = n_fitted + sum(b.numel() for b in model.buffers())
    copies = COPIES_WHILE_TRAINING * n_fitted + n_values * (2 if settings.ema_decay else 1)
    per_record = round(HOLES * max(larger - small, 0) / (LARGER_BATCH - SMALL_BATCH))
    return TrainingNeed(
        state=BYTES_PER_WEIGHT * copies,
        per_record=per_record,
        constant=max(small - SMALL_BATCH * per_record, 0) + WORK_SPACE_BYTES,
        weights=BYTES_PER_WEIGHT * n_values,
    )


def kept_bytes(
    model: nn.Module, n_records: int, n_samples: int, dtype: torch.dtype, single: bool
) -> int:
    """What a forward pass on the CPU keeps for the backward pass, and what that needs on top."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    unchanged: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor  # noqa: E731
    x_BLS = torch.randn(n_records, len(LEADS), n_samples)
    targets = torch.zeros(n_records, _n_classes(model, x_BLS))
    # bfloat16 stands for float16 too: as many bytes, and every CPU has it.
    half = dtype != torch.float32
    with torch.autograd.graph.saved_tensors_hooks(keep, unchanged):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model.train()(x_BLS)
        # Held until the count is done, with all that its graph keeps.
        loss = summed_loss(logits.float(), targets, single)
    in_hand = LAYERS_IN_HAND * max(kept.values(), default=0)
    total = sum(kept.values()) + in_hand + 2 * x_BLS.nbytes
    del loss
    return total


@torch.no_grad()
def _n_classes(model: nn.Module, x_BLS: torch.Tensor) -> int:
    return int(model.eval()(x_BLS[:1]).shape[-1])


# Disk --------------------------------------------------------------------------------------------


def prepared_bytes(n_records: int, n_samples: int) -> int:
    """What `einthoven prepare` writes of records of one window each."""
    return n_records * (2 * len(LEADS) * n_samples + BYTES_BESIDE_WINDOW)


def run_bytes(need: TrainingNeed) -> int:
    """What a run writes: checkpoints above all."""
    return need.weights * WEIGHTS_PER_SAVE * SAVES_AT_ONCE + RUN_FILES_BYTES
