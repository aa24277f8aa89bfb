# %% [markdown]
# # Ordered classes: from proportional odds to probabilities
#
# Party identification of 944 voters in the American National Election Study of 1996, from strong
# Democrat to strong Republican (`data/README.md`); the three kinds of independents are one class
# here. What goes with being Republican, and
# is that one shift of the whole scale, as proportional odds says, or more than that?

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

import deepregress as dr

voters = dr.datasets.load("anes96")
levels = ["strong Democrat", "weak Democrat", "independent", "weak Republican", "strong Republican"]
kinds = [each if each in levels else "independent" for each in voters["pid"]]
voters["party"] = pd.Categorical(kinds, levels, ordered=True)
formula = "party ~ selflr + age + educ + income"

# %% [markdown]
# ## Proportional odds
#
# logit P(party <= r) = threshold_r - location: one effect for each covariate, a log odds ratio of a
# class above r, the same for all r. `selflr` is the place on a scale from 1, extremely liberal, to
# 7, extremely conservative: a step multiplies the odds of being more Republican by 2.7.

# %%
proportional = dr.fit(formula, voters, family="ordinal")
print(proportional.summary())

# %% [markdown]
# ## Is it one shift?
#
# `nominal_test` gives each term an effect of its own on every threshold in turn, and compares the
# likelihoods. For the place on the scale the answer is no, and for age; income may stay as it is.

# %%
print(dr.nominal_test(proportional).round(4))

# %% [markdown]
# ## Partial proportional odds
#
# A formula for `threshold` gives thresholds that depend on covariates, here the place on the scale.
# The effects of `selflr` grow towards the Republican end: it says less of who is a strong Democrat
# than of who is a Republican.

# %%
partial = dr.fit(
    {"location": "party ~ age + educ + income", "threshold": "~ selflr"}, voters, "ordinal"
)
thresholds = [name for name in partial.family.parameter_names if name.startswith("threshold")]
# a threshold goes down where higher classes become more likely
effects = pd.DataFrame(
    {
        "log odds ratio": -partial.coef[[(name, "selflr") for name in thresholds]].to_numpy(),
        "se": partial.std_error[[(name, "selflr") for name in thresholds]].to_numpy(),
    },
    index=[name.removeprefix("threshold[")[:-1] for name in thresholds],
)
print(effects.round(3))

# %% [markdown]
# ## Scale effects
#
# The other way to leave proportional odds: classes that are further apart for some than for others.
# `scale_test` finds that education makes the parties' scale shorter or longer: with
# {"scale": "~ educ"} thresholds and location are divided by exp(effect educ).

# %%
print(dr.scale_test(proportional).round(4))
scaled = dr.fit({"location": formula, "scale": "~ educ"}, voters, "ordinal")
effect, error = scaled.coef["scale", "educ"], scaled.std_error["scale", "educ"]
print(f"log scale by a step of educ  {effect:.3f} (se {error:.3f})")

# %% [markdown]
# Which of them predicts best is said by rows that the fits have not seen: log score (larger is
# better) and ranked probability score (smaller is better).

# %%
models = {
    "proportional": formula,
    "partial": {"location": "party ~ age + educ + income", "threshold": "~ selflr"},
    "scale": {"location": formula, "scale": "~ educ"},
}
for name, each in models.items():
    scores = dr.cross_validate(each, voters, "ordinal", splitter=5, scores=("log_score", "rps"))
    mean = scores.loc["mean"]
    print(f"{name:<13} log score {mean['log_score']:.4f}  rps {mean['rps']:.4f}")

# %% [markdown]
# ## Probabilities of the classes
#
# What both models say of a voter of middle age, education and income, and the shares in the data.
# Among liberals proportional odds has too many strong Democrats and among conservatives too few
# strong Republicans; thresholds that move on their own come closer to the shares. At either end of
# the scale there are few voters.

# %%
grid = pd.DataFrame({"selflr": np.linspace(1.0, 7.0, 61)})
for name in ("age", "educ", "income"):
    grid[name] = float(voters[name].median())
colours = plt.get_cmap("RdBu_r")(np.linspace(0.02, 0.98, len(levels)))
shares = pd.crosstab(voters["selflr"], voters["party"], normalize="index")

figure, axes = plt.subplots(1, 3, figsize=(12.0, 4.2), layout="constrained")
for ax, model, title in zip(
    axes, (proportional, partial), ("proportional odds", "partial proportional odds"), strict=False
):
    p = model.predict(grid, "prob")[levels].to_numpy().T
    ax.stackplot(grid["selflr"], p, colors=colours, labels=levels, alpha=0.85)
    for total in shares[levels].cumsum(axis=1).to_numpy().T[:-1]:
        ax.plot(shares.index, total, "k.", markersize=4)
    ax.set(title=title, xlabel="selflr: liberal to conservative", xlim=(1, 7), ylim=(0, 1))
axes[0].set_ylabel("cumulated probability; points: shares")
axes[0].legend(fontsize=7, loc="lower left", reverse=True)
place = np.arange(len(effects))
axes[2].errorbar(
    effects["log odds ratio"], place, xerr=1.96 * effects["se"], fmt="o", color="black"
)
axes[2].axvline(proportional.coef["location", "selflr"], color="C3", linestyle="--")
axes[2].set_yticks(place, [name.replace("|", " |\n") for name in effects.index], fontsize=7)
axes[2].set(title="effect of selflr by threshold", xlabel="log odds ratio; dashed: proportional")
figure.savefig("ordinal.png")
