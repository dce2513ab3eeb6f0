"""Write the results of a screening run, scan by scan, as a handler of MONAI's evaluator."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from pathology_screen.io import source_id
from pathology_screen.outputs.results import free_name, write_result
from pathology_screen.outputs.worklist import save_overview, save_worklist, summary, worklist_rows
from pathology_screen.screening import AcceptedScans, ScreeningResult
from pathology_screen.screening.evaluated import judge_evaluated
from pathology_screen.screening.judge import Judge


class ScreeningWriter:
    """Handler that judges each scan and writes its results (`write_result`), refused scans
    included, and the worklist over all, rewritten after each scan.

    Args:
        output_dir: folder of the results.
        judge: of the weights, preprocessing and scoring in use.
        scans: the dataset that is screened.
    """

    def __init__(self, output_dir: str, judge: Judge, scans: AcceptedScans) -> None:
        self.folder, self.judge, self.scans = Path(output_dir), judge, scans
        self.images = {item["name"]: item["image"] for item in scans.data}
        self.records: dict[str, dict[str, Any]] = {}
        self.since = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.given_batch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        self.records = {}

    def given_batch(self, engine: Engine) -> None:
        self.since = time.perf_counter()

    def write(self, engine: Engine) -> None:
        """Write the results of a batch and of what was refused before it."""
        seconds = time.perf_counter() - self.since
        state: Any = engine.state
        for item, output in zip(state.batch, state.output):
            context = self.scans.contexts[item["name"]]
            result = judge_evaluated(self.judge, item["image"], output, context)
            took = context.seconds | {"screening": seconds}
            self._write(item["name"], replace(result, seconds=took))
        save_worklist(self._rows(), self.folder)

    def completed(self, engine: Engine) -> None:
        """Write what was refused last, and what a folder of results holds beside them."""
        save_overview(self._rows(), self.folder)

    def finish(self) -> None:
        """Print what was found; end the program with status 1 and the reasons if a scan was not
        assessable."""
        rows = worklist_rows(list(self.records.values()))
        print(f"{summary(rows)}\nlook at: {self.folder / 'index.html'}")
        refused = [row for row in rows if row["outcome"] == "not_assessable"]
        reasons = [f"  {row['name']}: {row['reason']}" for row in refused]
        if reasons:
            first = f"{len(reasons)} of {len(rows)} scans were not assessable:"
            raise SystemExit("\n".join([first, *reasons]))

    def _write(self, name: str, result: ScreeningResult) -> None:
        identity = source_id(self.images[name])
        free = free_name(self.folder, name, identity)
        self.records[name] = write_result(result, free, self.folder, source_id=identity)

    def _rows(self) -> list[dict[str, Any]]:
        """The worklist so far; writes the results of what was refused since."""
        for name in self.scans.refused.keys() - self.records.keys():
            context = self.scans.contexts[name]
            refused = self.judge.refuse(self.scans.refused[name], context)
            self._write(name, replace(refused, seconds=context.seconds))
        return worklist_rows(list(self.records.values()))
