"""Series of observations: lags, autoregression and forecasts."""
