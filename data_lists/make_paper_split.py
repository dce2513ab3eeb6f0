"""Make `fastmri.csv` and `ixi.csv` from the paper's split and the table of its slices.

    python data_lists/make_paper_split.py SPLITS SLICES

SPLITS: CSV with the columns group, split, file, label, box_index: a row for each image or box of
the lists that the paper's authors released with their code (https://github.com/ci-ber/RA,
data/*/splits). A file of a box is named `<file>_<label>_<index>` there, the index being its place
among all boxes of the slice in the order of their labels.
SLICES: CSV with the columns fastmri_file, slices_consistent_with_official_lists (numbers apart by
spaces), suggested_slice (the one among them that is nearest 3): which slices of a file hold exactly
the boxes listed for it.

Both tables that are written hold ids, groups and slice numbers: no pixels and no boxes.
"""

import sys
from pathlib import Path

import pandas as pd

from pathology_screen.files import replacing

FOLDER = Path(__file__).parent
GROUPS = ["normal", "global_pathology", "global_artefact", "local"]
SECTIONS = {"train": "training", "val": "validation", "test": "test"}
NO_TABLE_SLICE = 3  # fits more of the listed files than any other index
SMALL_VESSEL = "small vessel chronic white matter ischemic change"
PATHOLOGY = {
    f"global_global_label:_{SMALL_VESSEL.replace(' ', '_')}": SMALL_VESSEL,
    "global_colpocephaly": "colpocephaly",
    "global_extra-axial_collection": "extra-axial collection",
    "global_motion_artifact": "motion artefact",
    "possible_artifact": "possible artefact",
}
LEFT_OUT = {"file_brain_AXT1_202_2020334": "Nonspecific lesion"}
"""Label whose boxes on this file are annotated, but not in the paper's lists."""


def fastmri_table(splits: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """One row a file; a file with local boxes that is also a global artefact stands in the latter
    group."""
    splits = splits[splits["group"] != "ixi"]
    counted = splits["group"].str.startswith("local:") & (splits["group"] != "local:artefacts")
    boxes = splits[counted].groupby("file").size()
    groups = splits[~splits["group"].str.startswith("local:")]
    groups = groups.drop_duplicates("file").set_index("file")
    files = sorted({*groups.index, *boxes.index})
    table = pd.DataFrame({"file": files}).set_index("file")
    table["section"] = groups["split"].map(SECTIONS).reindex(files, fill_value="test")
    table["group"] = groups["group"].reindex(files, fill_value="local")
    table["pathology"] = groups["label"].map(PATHOLOGY).reindex(files)
    table["boxes"] = boxes.reindex(files, fill_value=0)
    chosen = slices.set_index("fastmri_file")
    table["slice"] = chosen["suggested_slice"].reindex(files, fill_value=NO_TABLE_SLICE)
    table["possible_slices"] = chosen["slices_consistent_with_official_lists"].reindex(files)
    table["left_out"] = pd.Series(LEFT_OUT).reindex(files)
    table["section"] = pd.Categorical(table["section"], list(SECTIONS.values()))
    table["group"] = pd.Categorical(table["group"], GROUPS)
    return table.sort_values(["section", "group", "file"])


def ixi_table(splits: pd.DataFrame) -> pd.DataFrame:
    """The ids of the IXI subjects that the paper trains on, such as IXI002."""
    files = splits.loc[splits["group"] == "ixi", "file"]
    return pd.DataFrame({"subject": sorted(files.str.removeprefix("sub-"))})


def main() -> None:
    splits, slices = (pd.read_csv(path) for path in sys.argv[1:3])
    with replacing(FOLDER / "fastmri.csv") as path:
        fastmri_table(splits, slices).to_csv(path)
    with replacing(FOLDER / "ixi.csv") as path:
        ixi_table(splits).to_csv(path, index=False)


if __name__ == "__main__":
    main()
