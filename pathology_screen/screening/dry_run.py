"""What a run over scans would do, without doing it."""

from monai.transforms import Compose

from pathology_screen.errors import NOT_ASSESSABLE
from pathology_screen.screening.batch import Batch
from pathology_screen.screening.context import Inspector


def rehearse(batch: Batch) -> int:
    """Print of every scan whether it is done already, would be screened, or would be refused, and
    what is passed over; write nothing.

    Each scan that is not done is read and its headers are judged; what the later steps might refuse
    (brain extraction, registration, the network) is not foreseen.

    Returns:
        The exit status that the run would have as far as this tells: `NOT_ASSESSABLE` or 0.

    Raises:
        RunError: see `Batch.plan`.
    """
    predictor = batch.judge.predictor
    reading = Compose(predictor.preprocessing.transforms[:1])
    inspect = Inspector(reading, predictor.slice_options["domain"])
    status, counts = 0, dict.fromkeys(("to screen", "done already", "would be refused"), 0)
    for item, record in batch.plan():
        if record is not None:
            state, code = "done already", record["code"]
            shown = f"{state}: {record['outcome']}"
        else:
            refusal = inspect(item.scan.source, **batch.options(item)).refusal
            state, code = "would be refused" if refusal else "to screen", refusal and refusal.code
            shown = f"{state}: {refusal}" if refusal else state
        counts[state] += 1
        status = NOT_ASSESSABLE if code else status
        print(f"{item.name}: {shown}", flush=True)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    print(f"{told}, {len(batch.others)} files or links passed over; nothing was written")
    return status
