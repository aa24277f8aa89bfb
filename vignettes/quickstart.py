# %% [markdown]
# # What a network adds to a regression, and what it does not touch
#
# Hours of a bike-sharing service in Washington, D.C., 2011 (`data/README.md`). The question of a
# statistician: what do weather and temperature do to demand? The answer should be curves and
# coefficients with standard errors, and they should not depend on how well the rest of the model
# was guessed. The rest here is the course of the day, which differs between working days and
# weekends and over the seasons.

# %%
import tempfile
from pathlib import Path

import numpy as np

import deepregress as dr

bikes = dr.datasets.load("bikeshare")

# whole days are held out: hours of one day are too much alike to judge a model by
days = np.random.default_rng(1).permutation(365) + 1
held_out = bikes["day_of_year"].isin(days[:90])
train, test = bikes[~held_out], bikes[held_out]

# %% [markdown]
# ## A distribution, not a mean
#
# Counts are large and vary more than a Poisson count would, so they get a gamma distribution whose
# dispersion follows the hour too. Both formulas are smooth; nothing has to be tuned.

# %%
structured = "bikers ~ s(hour, k=20, bs='cr') + s(temp) + s(humidity) + weather + C(workingday)"
dispersion = "~ s(hour, k=12, bs='cr')"

additive = dr.fit({"mean": structured, "dispersion": dispersion}, train, family="gamma")
print(additive.summary())

# %% [markdown]
# ## The network as one more term
#
# `deep()` sees the hour, the working day and the season, and may combine them as it likes. It
# shares `hour` and `workingday` with structured terms and is made orthogonal to these: what a curve
# of the hour and a coefficient of the working day can say, they say; the network has what is left.

# %%
semistructured = dr.fit(
    {"mean": structured + " + deep(hour, workingday, day_of_year)", "dispersion": dispersion},
    train,
    family="gamma",
    seed=1,
    verbose=0,
)
print(semistructured.summary())

figure = semistructured.plot()
figure.savefig("quickstart.png")

# %% [markdown]
# ## What it adds
#
# The summary gives the gain in log score on rows the networks had not seen. The held-out days say
# the same; the standard error counts days, not hours.


# %%
def compare(model, reference, name):
    """Gain in log score per hour on the held-out days, with its standard error over days."""
    gain = model.predict(test, "logpdf") - reference.predict(test, "logpdf")
    by_day = test.assign(gain=gain).groupby("day_of_year")["gain"].sum()
    se = np.sqrt(len(by_day)) * by_day.std() / len(test)
    print(f"{name:<28}{model.log_score(test):8.3f}{gain.mean():+9.3f}  (se {se:.3f})")


print(f"{'':<28}{'score':>8}{'gain':>9}")
compare(additive, additive, "additive")
compare(semistructured, additive, "with deep()")

# %% [markdown]
# What did it find? Its effect on a Sunday and a Monday in spring, against the common curve of the
# hour: on Sundays riders are missing in both rush hours, on Mondays at midday and in the night.

# %%
hours = [3, 8, 13, 17, 22]
for name, working in (("Sunday", 0), ("Monday", 1)):
    grid = {"hour": hours, "workingday": [working] * 5, "day_of_year": [120] * 5}
    effect = semistructured.partial_effect("deep(hour, workingday, day_of_year)", grid=grid)
    shown = "".join(
        f"{hour:>5}h {value:+.2f}" for hour, value in zip(hours, effect["effect"], strict=True)
    )
    print(f"{name:<8}{shown}")

# %% [markdown]
# ## What it leaves to the terms
#
# The network knows the hour and the working day, yet it is orthogonal to their terms: what it says
# has no weighted mean within an hour or on working days. The curve of the hour keeps its shape. The
# coefficient of the working day moves, and its error shrinks: its effect differs by the hour, on a
# log scale by more than one, and without the network it is the logarithm of a ratio of means over
# the hours, beside it a mean of logarithms. The two are one where the link is the identity; in
# other links an effect that is averaged is another one than the effect within (it is not
# collapsible), for any term that is added, a network or not.


# %%
def coefficients(names, models):
    """Estimates and standard errors of the mean's coefficients in several models."""
    for name in names:
        print(f"{name:<28}", end="")
        for model in models:
            row = model.summary().parametric.loc[("mean", name)]
            print(f"{row['estimate']:+8.3f} ({row['std_error']:.3f})", end="")
        print()


print(f"{'':<28}{'additive':>16}{'with deep()':>16}")
coefficients(["C(workingday)[T.1]"], [additive, semistructured])
grid = {"hour": [3, 8, 13, 17, 22]}
for name, model in (("additive", additive), ("with deep()", semistructured)):
    effect = model.partial_effect("s(hour)", "mean", grid=grid)
    print(f"s(hour), {name:<19}" + "".join(f"{v:+8.2f}" for v in effect["effect"]))

# %% [markdown]
# These standard errors are given the networks. Those for the population, `cov_population`, count
# that the network would differ in other data of this kind: they are larger, here about as large as
# without a network. Print both before you claim precision.

# %%
conditional = semistructured.std_error["mean", "C(workingday)[T.1]"]
population = semistructured.cov_population.loc[
    ("mean", "C(workingday)[T.1]"), ("mean", "C(workingday)[T.1]")
]
print(f"given the networks {conditional:.4f}, population {np.sqrt(population):.4f}")

# %% [markdown]
# ## What it adjusts for
#
# Weather and temperature share no variable with the network, and go with the season, which the
# additive model left out. So they are adjusted for it, as they would be by any term of the season:
# compare with the last model, where the season is written as `s(day_of_year)`.
#
# ## When you know the answer, write it
#
# The network pointed at the hour of working and free days and at the season. A statistician can now
# write both down. The formula then does as well as the network, within the errors of the scores,
# and every part of it can be read: a deep term is for what cannot be written, such as images, and
# to see what a formula has missed.


# %%
def labelled(table):
    """The table with the working day as a factor."""
    return table.assign(day=np.where(table["workingday"] == 1, "working", "free"))


train, test = labelled(train), labelled(test)
written = dr.fit(
    {
        "mean": "bikers ~ s(hour, by=day, k=20, bs='cr') + day + s(day_of_year)"
        " + s(temp) + s(humidity) + weather",
        "dispersion": dispersion,
    },
    train,
    family="gamma",
)
print(f"{'':<28}{'score':>8}{'gain':>9}")
compare(semistructured, additive, "with deep()")
compare(written, additive, "written out")
print(f"\n{'':<28}{'additive':>16}{'with deep()':>16}{'written out':>16}")
names = ["weather[T.cloudy/misty]", "weather[T.light rain/snow]"]
coefficients(names, [additive, semistructured, written])

# %% [markdown]
# ## What else a model can do

# %%
tomorrow = test.head(3)
print(semistructured.predict(tomorrow, interval=0.95).round(1))
print(semistructured.predict(tomorrow, "quantile", at=[0.05, 0.5, 0.95]).round(0))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "bikes.zip"
    semistructured.save(path)
    again = dr.load(path)
print("the same after loading:", np.array_equal(again.predict(test), semistructured.predict(test)))
