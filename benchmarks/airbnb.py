"""Munich Airbnb: what descriptions and pictures add to a structured model of the price.

    python benchmarks/airbnb.py [--data ../shared/benchdata] [--models structured text ...]

Log price is normal. The structured model is that of the baseline `gaulss_structured_ssdr` (mgcv):
te(longitude, latitude) and smooths in the mean, room_type and te in the log sd. To its mean are
added the title and description of the host (`networks.text()`), the picture (`networks.cnn()`, 16 x
16 means of the 64 x 64 pixels stored), or both, with the defaults. Printed are the mean negative
log-likelihood, RMSE and coverage of 90 % intervals of the 350 test rows, and the difference to the
structured model with the standard error of its mean over these rows. A third of the test rows have
a host with training rows.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

import deepregress as dr

LOCATION = (
    "log_price ~ room_type + te(longitude, latitude) + s(accommodates) + s(bedrooms, k=5)"
    " + s(beds, k=5) + s(days_since_last_review) + s(reviews_per_month) + s(review_scores_rating)"
)
SCALE = "~ room_type + te(longitude, latitude)"
MODELS = {
    "structured": ("", {}),
    "text": (" + said(words)", {"said": dr.networks.text}),
    "attention": (
        " + said(words)",
        {"said": lambda: dr.networks.text(pooling="attention")},
    ),
    "picture": (" + photo(image)", {"photo": dr.networks.cnn}),
    "text and picture": (
        " + said(words) + photo(image)",
        {"said": dr.networks.text, "photo": dr.networks.cnn},
    ),
}


def table(folder: Path) -> dict[str, np.ndarray]:
    """The listings with their words and pictures; one row without a split is left out."""
    where = folder / "airbnb_munich"
    rows = pd.read_csv(where / "airbnb.csv.gz")
    said = pd.read_csv(where / "airbnb_text.csv.gz").set_index("listing_id").fillna("")
    stored = np.load(where / "images_64.npz")
    pictures = np.empty_like(stored["images"])
    pictures[stored["row_index"]] = stored["images"]
    words = (
        said.loc[rows["listing_id"], "title"] + ". " + said.loc[rows["listing_id"], "description"]
    )
    named = [*"log_price room_type longitude latitude accommodates bedrooms beds split".split()]
    named += "days_since_last_review reviews_per_month review_scores_rating".split()
    columns = {name: rows[name].to_numpy() for name in named}
    columns |= {"words": words.to_numpy(dtype=object)}
    known = rows["split"].notna().to_numpy()
    blocks = pictures.reshape(len(pictures), 16, 4, 16, 4, 3).astype(np.float32)
    columns["image"] = blocks.mean(axis=(2, 4)) / 255
    return {name: values[known] for name, values in columns.items()}


def main() -> None:
    """Fit and score the models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/benchdata"))
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    data = table(arguments.data)
    train, test = (
        {name: values[data["split"] == part] for name, values in data.items()}
        for part in ("train", "test")
    )
    print("baseline gaulss_structured_ssdr (mgcv): nll .734 (se .103), rmse .486, coverage .923")
    rowwise: dict[str, np.ndarray] = {}
    for name in arguments.models:
        added, networks = MODELS[name]
        start = time.process_time()
        model = dr.fit(
            {"loc": LOCATION + added, "scale": SCALE},
            data=train,
            networks={key: make() for key, make in networks.items()},
            seed=arguments.seed,
            verbose=0,
        )
        seconds = time.process_time() - start
        rowwise[name] = -np.asarray(model.predict(test, "logpdf"))
        print(describe(name, model, test, rowwise, seconds), flush=True)


def describe(
    name: str,
    model: dr.FittedModel,
    test: dict[str, np.ndarray],
    rowwise: dict[str, np.ndarray],
    seconds: float,
) -> str:
    """One line of scores."""
    y, nll = test["log_price"], rowwise[name]
    parameters = model.predict(test, "params")
    residual = (y - parameters["loc"].to_numpy()) / parameters["scale"].to_numpy()
    rmse = np.sqrt(np.mean((y - parameters["loc"].to_numpy()) ** 2))
    line = f"{name:18s} nll {nll.mean():.3f} (se {nll.std(ddof=1) / np.sqrt(len(nll)):.3f})"
    line += f"  rmse {rmse:.3f}  coverage {np.mean(np.abs(residual) < 1.645):.3f}"
    if name != "structured" and "structured" in rowwise:
        gain = rowwise["structured"] - nll
        line += f"  gain {gain.mean():+.3f} (se {gain.std(ddof=1) / np.sqrt(len(gain)):.3f})"
    return f"{line}  {seconds:.0f} CPU s"


if __name__ == "__main__":
    main()
