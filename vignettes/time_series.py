# %% [markdown]
# # Series: lags, transformation models with memory, and forecasts of distributions
#
# Rides of a bike-sharing service by the hour in spring 2011 (`data/README.md`). An hour depends on
# the one before and on the same hour of the day before; what is wanted is the distribution of the
# next two days, hour by hour and jointly.

# %%
import warnings

import numpy as np
from matplotlib import pyplot as plt

import deepregress as dr

bikes = dr.datasets.load("bikeshare")
bikes["day"] = np.where(bikes["workingday"] == 1, "working", "free")
bikes["t"] = 24 * (bikes["day_of_year"] - 1) + bikes["hour"]
spring = bikes[bikes["day_of_year"].between(60, 120)]
train, test = spring[spring["day_of_year"] <= 118], spring[spring["day_of_year"] > 118]
hours = 24 * 59
print(f"{hours - len(train)} of {hours} hours are missing")

# %% [markdown]
# ## Lags are terms
#
# `lag(x, 1, time=t)` is the row of the hour before: where that hour is missing the lag is, and the
# row is left out with a message, as any with a missing value. A new table goes on from the last
# rows of training.
#
# In a transformation model `lag(h(y), ...)` is memory on the transformed scale,
# h(y_t) - phi_1 h(y_(t-1)) - phi_24 h(y_(t-24)) = shift + noise: an autoregression in which the
# data choose the scale. `family="lm"`, where h is a line, is the classical one.

# %%
# said above: 15 hours are missing, and so are the lags of the first day
warnings.simplefilter("ignore", dr.errors.DroppedRowsWarning)
formula = "bikers ~ s(hour, by=day, k=15, bs='cc') + day + day_of_year + temp + weather"
memory = formula + " + lag(h(bikers), [1, 24], time=t)"
models = {
    "no memory": dr.fit(formula, train, family="boxcox"),
    "linear": dr.fit(memory, train, family="lm"),
    "transformed": dr.fit(memory, train, family="boxcox"),
}
for name, model in models.items():
    print(f"{name:<12} one-step log score {model.log_score(test):.3f}  rows {model.nobs}")
phi = models["transformed"].coef[["autoregression[1]", "autoregression[24]"]].to_numpy()
print(f"memory of the hour before {phi[0]:.3f}, of the day before {phi[1]:.3f}")

# %% [markdown]
# ## Two days ahead
#
# `forecast` draws paths: each hour from its distribution given the path so far. The weather of the
# two days is taken as known. Bands hold what is not known of each hour, paths of all of them
# together: the rides of a whole day are a sum over a path. The two days came busier than an average
# of spring, the second, a free one, above most of its bands: hours of one day are wrong together,
# which a path can show and a band cannot.

# %%
ahead = models["transformed"].forecast(newdata=test, n=1000, seed=1)
bands = ahead.quantiles([0.1, 0.5, 0.9])
inside = np.mean(
    (test["bikers"] >= bands["0.1"].to_numpy()) & (test["bikers"] <= bands["0.9"].to_numpy())
)
print(f"hours in their bands of 80 %: {inside:.2f}")
day = (test["day_of_year"] == 119).to_numpy()
rides = ahead.paths[:, day].sum(axis=1)
low, high = np.quantile(rides, [0.1, 0.9])
came = test["bikers"][day].sum()
print(f"rides of the first day: 80 % between {low:.0f} and {high:.0f}, came {came}")

# %%
figure = ahead.plot(levels=(0.95, 0.8, 0.5), paths=2)
figure.axes[0].plot(test["t"], test["bikers"], "k.", markersize=4)
figure.savefig("time_series.png")
plt.close(figure)
