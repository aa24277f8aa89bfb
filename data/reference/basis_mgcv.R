# Makes basis_mgcv.json: knots, penalty scales, extrapolation and constraint of mgcv's bases.
# Run in this folder: Rscript basis_mgcv.R
suppressMessages({library(mgcv); library(jsonlite)})
d <- read.csv("basis.csv")
d$w <- sin(7 * d$x + 3 * d$z)
times <- read.csv("../mcycle.csv")["times"]
smooth <- function(sp, data = d, knots = NULL)
  smoothCon(sp, data, knots, absorb.cons = FALSE, scale.penalty = TRUE)[[1]]

scales <- list(
  mcycle_k20 = smooth(s(times, k = 20), times)$S.scale,
  mcycle_k10 = smooth(s(times, k = 10), times)$S.scale,
  x_m1 = smooth(s(x, k = 10, m = 1))$S.scale,
  x_m3 = smooth(s(x, k = 10, m = 3))$S.scale,
  x_knots = smooth(s(x, k = 6), knots = list(x = seq(0, 10, length = 15)))$S.scale,
  xz = smooth(s(x, z, k = 20))$S.scale,
  xz_default = smooth(s(x, z))$S.scale,
  xz_m3 = smooth(s(x, z, k = 20, m = 3))$S.scale,
  xzw = smooth(s(x, z, w, k = 30))$S.scale)

knots <- list(
  ps_ends = as.numeric(smooth(s(x, k = 8, bs = "ps"), knots = list(x = c(0, 12)))$knots),
  ps_m1 = as.numeric(smooth(s(x, k = 8, bs = "ps", m = 1))$knots))

# Penalised least squares with the raw penalty, at rows far outside the data.
outside <- c(-3, -1, 12, 20)
beyond <- sapply(c("tp", "cr", "ps"), function(bs) {
  sm <- smooth.construct(s(x, bs = bs, k = 6), d, NULL)
  X <- Predict.matrix(sm, d)
  coef <- solve(crossprod(X) + sm$S[[1]], crossprod(X, d$y))
  as.numeric(Predict.matrix(sm, data.frame(x = outside)) %*% coef)
}, simplify = FALSE)

centred <- smoothCon(s(x, k = 6, bs = "cr"), d, absorb.cons = TRUE, scale.penalty = TRUE)[[1]]
origin <- paste("mgcv", packageVersion("mgcv"), R.version.string,
                "basis_mgcv.R on basis.csv (basis_check of the oracles) and ../mcycle.csv")
write_json(list(origin = origin, scales = scales, knots = knots,
                outside = list(x = outside, fitted = beyond),
                centred = list(X = centred$X[c(1, 100, 200), ], S = centred$S[[1]])),
           "basis_mgcv.json", digits = NA, auto_unbox = TRUE, pretty = TRUE)
