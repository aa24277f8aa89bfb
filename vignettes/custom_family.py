# %% [markdown]
# # A distribution of your own
#
# Times to recurrence of breast cancer (`data/README.md`), many of them censored. The package has
# the Weibull distribution for them; here are three ways to bring another one. All that follows the
# likelihood (censored rows, smooth terms, standard errors, survival curves, residuals) comes along.

# %%
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib import pyplot as plt

import deepregress as dr
from deepregress.bijectors import link
from deepregress.families import Family, Parameter, Value

tfd = tfp.distributions
patients = dr.datasets.load("gbsg2")
patients["time"] = patients["time"] / 365.25
formula = "Surv(time, event) ~ size + nodes + hormone"

weibull = dr.fit(formula, patients, family="weibull")
print(f"weibull, built in         {weibull.loglik:.3f}")

# %% [markdown]
# ## 1. A class of TensorFlow Probability
#
# Parameters, links and support are derived from the class. Its first parameter is what a single
# formula models, so name the one that is meant. It is the same distribution, so the same fit.

# %%
given = dr.fit({"scale": formula}, patients, family=tfd.Weibull)
print(f"tfd.Weibull               {given.loglik:.3f}")

# %% [markdown]
# ## 2. A function that returns a distribution
#
# For other parameters than those of the class, or for fixed ones. Which links they need is found by
# trying: both parameters of this gamma distribution must be positive, so both get the logarithm.


# %%
def gamma_of_mean(mean: tf.Tensor, dispersion: tf.Tensor) -> tfd.Distribution:
    """Return a gamma distribution with variance dispersion * mean^2."""
    return tfd.Gamma(1.0 / dispersion, rate=1.0 / (dispersion * mean))


events = patients[patients["event"] == 1]
own = dr.fit("time ~ size + hormone", events, family=gamma_of_mean)
built_in = dr.fit("time ~ size + hormone", events, family="gamma")
difference = np.abs(own.predict(events[:5]) / built_in.predict(events[:5]) - 1.0).max()
print(f"gamma by a function       {difference:.0e} from the built-in means")

# %% [markdown]
# ## 3. A class of your own
#
# The Gompertz distribution has the hazard `rate * exp(aging * time)`: a log hazard that is a
# straight line in time. It is not in TensorFlow Probability. Two formulas are enough, the density
# and the survival function on the log scale; write them so that they hold at `aging = 0`, where the
# distribution is exponential. `expm1(x) / x` is what has to be right there.


# %%
def exponential_ratio(x: tf.Tensor) -> tf.Tensor:
    """Return (exp(x) - 1) / x, by its power series near zero."""
    near = tf.abs(x) < 1e-2
    series = 1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0)))
    away = tf.where(near, tf.ones_like(x), x)
    return tf.where(near, series, tf.math.expm1(away) / away)


@dataclass(frozen=True)
class Gompertz(Family):
    """Gompertz distribution: log hazard log(rate) + aging * y."""

    name = "gompertz"
    about = "Gompertz, hazard rate * exp(aging * y)"
    support = "positive numbers"
    bounds = (0.0, np.inf)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        """Return the parameters with their links; the first is what a single formula models."""
        return (
            Parameter("rate", link("log"), "hazard at time zero"),
            Parameter("aging", link("identity"), "growth of the log hazard"),
        )

    def log_survival(self, values: Mapping[str, Value], y: tf.Tensor) -> tf.Tensor:
        """Return minus the cumulative hazard."""
        return -values["rate"].value * y * exponential_ratio(values["aging"].value * y)

    def log_density(self, values: Mapping[str, Value], y: tf.Tensor) -> tf.Tensor:
        """Return log hazard plus log survival."""
        return values["rate"].log + values["aging"].value * y + self.log_survival(values, y)


gompertz = dr.fit(formula, patients, family=Gompertz)
print(gompertz.summary())
print(f"AIC gompertz {gompertz.aic:.1f}, weibull {weibull.aic:.1f}")

# %% [markdown]
# Every parameter can have a formula, with smooth terms too. The rest of the package does not know
# that the family is not its own.

# %%
curved = dr.fit(
    {"rate": "Surv(time, event) ~ s(nodes) + size + hormone", "aging": "~ hormone"},
    patients,
    Gompertz,
)
print(f"edf of s(nodes)           {curved.edf['rate', 's(nodes)']:.2f}")

women = {"size": [20.0, 20.0, 50.0], "nodes": [1.0, 10.0, 10.0], "hormone": ["yes", "yes", "no"]}
print("quartile in years        ", gompertz.predict(women, which="quantile", at=0.25).round(2))

at = np.linspace(0.0, 6.0, 61)
survival = curved.predict(women, which="survival", at=at)
hazard = curved.predict(women, which="hazard", at=at)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
for row, positive in enumerate(women["nodes"]):
    label = f"{women['size'][row]:.0f} mm, {positive:.0f} nodes, hormones: {women['hormone'][row]}"
    axes[0].plot(at, survival[row], label=label)
    axes[1].plot(at, hazard[row], label=label)
axes[0].set(xlabel="years", ylabel="free of recurrence", ylim=(0.0, 1.0))
axes[1].set(xlabel="years", ylabel="hazard per year")
axes[0].legend(frameon=False)
figure.tight_layout()
figure.savefig("custom_family.png", dpi=120)
residuals = gompertz.residuals()
print(f"residuals: mean           {residuals.mean():.2f}, sd {residuals.std():.2f}")
